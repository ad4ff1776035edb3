#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "shared_prefix_attention.h"

namespace titer {
namespace {

constexpr int64_t kScoreBytes = int64_t{16} << 20;  // of one batch, unless a single continuation needs more

/// Consecutive continuations, padded to the longest of each part.
struct Batch {
  std::vector<int64_t> rows, queries, visible, first_row, first_query;
  int64_t max_rows = 0, max_queries = 0, max_visible = 0;

  int64_t size() const { return static_cast<int64_t>(rows.size()); }

  int64_t scores_with(int64_t own, int64_t wanted, int64_t seen) const {
    return (size() + 1) * std::max(max_queries, wanted) * (std::max(max_visible, seen) + std::max(max_rows, own));
  }

  void add(int64_t own, int64_t wanted, int64_t seen, int64_t row, int64_t query) {
    rows.push_back(own);
    queries.push_back(wanted);
    visible.push_back(seen);
    first_row.push_back(row);
    first_query.push_back(query);
    max_rows = std::max(max_rows, own);
    max_queries = std::max(max_queries, wanted);
    max_visible = std::max(max_visible, seen);
  }
};

void attend(const Batch& batch, const SharedPrefixInputs& in, const at::Tensor& out) {
  const auto& [q, k, v, prefix_k, prefix_v, layout] = in;
  const int64_t count = batch.size(), heads = q.size(1), group = q.size(2), head_dim = q.size(3);
  const int64_t queries = batch.max_queries * group;  // of a key head
  const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto column = [&](const std::vector<int64_t>& values) {  // [count, 1]
    return at::tensor(values, at::kLong).to(q.device()).unsqueeze(1);
  };
  const at::Tensor own_rows = column(batch.rows), wanted = column(batch.queries), visible = column(batch.visible);
  const auto places = [&](int64_t length) { return at::arange(length, own_rows.options()).unsqueeze(0); };
  // Rows of x, where those behind a continuation's last repeat it: [count, length, ...].
  const auto padded = [&](const at::Tensor& x, const std::vector<int64_t>& first, const at::Tensor& lengths,
                          int64_t length) {
    const at::Tensor index = column(first) + at::minimum(places(length), lengths - 1);
    return x.index_select(0, index.flatten()).to(wide).unflatten(0, {count, length});
  };
  const auto own = [&](const at::Tensor& x) {  // [count, Hkv, rows, hd]
    return padded(x, batch.first_row, own_rows, batch.max_rows).transpose(1, 2);
  };
  const auto seen = [&](const at::Tensor& x) { return x.narrow(1, 0, batch.max_visible).to(wide); };
  // [count, Hkv, queries, .] and [Hkv, count * queries, .]
  const at::Tensor by_own = padded(q, batch.first_query, wanted, batch.max_queries)
                                .transpose(1, 2)
                                .reshape({count, heads, queries, head_dim});
  const auto to_prefix = [&](const at::Tensor& x) { return x.transpose(0, 1).reshape({heads, count * queries, -1}); };
  const auto from_prefix = [&](const at::Tensor& x) { return x.unflatten(1, {count, queries}).transpose(0, 1); };

  at::Tensor scores = at::cat({from_prefix(at::matmul(to_prefix(by_own), seen(prefix_k).transpose(1, 2))),
                               at::matmul(by_own, own(k).transpose(2, 3))},
                              -1)
                          .mul_(layout.scale);
  if (layout.soft_cap) scores = at::tanh(scores / *layout.soft_cap) * *layout.soft_cap;

  // Positions of keys [count, 1, keys] and of queries [count, queries, 1]; what is padding lies behind all queries.
  const at::Tensor in_prefix = places(batch.max_visible);
  const at::Tensor behind = visible + own_rows;
  const at::Tensor key =
      at::cat({at::where(in_prefix < visible, in_prefix, behind), visible + places(batch.max_rows)}, 1).unsqueeze(1);
  const at::Tensor query =
      (behind - wanted + at::minimum(places(batch.max_queries), wanted - 1)).repeat_interleave(group, 1).unsqueeze(2);
  at::Tensor hidden = key.gt(query);
  if (layout.window) hidden.logical_or_(key.le(query - *layout.window));
  scores.masked_fill_(hidden.unsqueeze(1), -std::numeric_limits<double>::infinity());

  const at::Tensor weights = at::softmax(scores, -1);
  const at::Tensor result =
      (from_prefix(at::matmul(to_prefix(weights.narrow(-1, 0, batch.max_visible)), seen(prefix_v))) +
       at::matmul(weights.narrow(-1, batch.max_visible, batch.max_rows), own(v)))
          .unflatten(2, {batch.max_queries, group})
          .transpose(1, 2)
          .reshape({count * batch.max_queries, heads, group, head_dim});
  const int64_t first = batch.first_query.front(), end = batch.first_query.back() + batch.queries.back();
  const at::Tensor unpadded = (places(batch.max_queries) < wanted).flatten().nonzero().squeeze(1);
  out.narrow(0, first, end - first).copy_(result.index_select(0, unpadded));
}

}  // namespace

void shared_prefix_attention_composed(const SharedPrefixInputs& inputs, const at::Tensor& out) {
  const ops::SharedPrefixLayout& layout = inputs.layout;
  const int64_t* const rows = layout.rows.const_data_ptr<int64_t>();
  const int64_t* const visible = layout.visible.const_data_ptr<int64_t>();
  const int64_t score_bytes = inputs.q.size(1) * inputs.q.size(2) * static_cast<int64_t>(sizeof(float));
  Batch batch;
  int64_t row = 0, query = 0;
  for (int64_t c = 0; c < layout.rows.size(0); ++c) {
    const int64_t queries = layout.queries.value_or(rows[c]);
    if (layout.first_row) row = layout.first_row->const_data_ptr<int64_t>()[c];
    if (batch.size() > 0 && batch.scores_with(rows[c], queries, visible[c]) * score_bytes > kScoreBytes) {
      attend(batch, inputs, out);
      batch = Batch();
    }
    batch.add(rows[c], queries, visible[c], row, query);
    row += rows[c];
    query += queries;
  }
  if (batch.size() > 0) attend(batch, inputs, out);
}

}  // namespace titer
