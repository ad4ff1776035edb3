#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>

#include <algorithm>
#include <limits>

#include "shared_prefix_attention.h"

namespace titer {
namespace {

constexpr int64_t kScoreBytes = int64_t{16} << 20;  // of one step, unless a single continuation needs more

/// `count` continuations with `rows` rows, `queries` queries and `visible` positions of the prefix each.
struct Alike {
  int64_t count, rows, queries, visible;
};

/// [queries * G, visible + rows], true where a key may not be seen.
at::Tensor hidden_keys(const Alike& c, int64_t group, std::optional<int64_t> window, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor key = at::arange(c.visible + c.rows, options).unsqueeze(0);
  const at::Tensor query =
      at::arange(c.visible + c.rows - c.queries, c.visible + c.rows, options).repeat_interleave(group).unsqueeze(1);
  const at::Tensor later = key.gt(query);
  return window ? later.logical_or(key.le(query - *window)) : later;
}

at::Tensor attend(const Alike& c, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const at::Tensor& prefix_k, const at::Tensor& prefix_v, const ops::SharedPrefixLayout& layout) {
  const int64_t heads = q.size(1), group = q.size(2), head_dim = q.size(3);
  const int64_t queries = c.queries * group;  // of a key head
  const auto own = [&](const at::Tensor& x) { return x.unflatten(0, {c.count, c.rows}).transpose(1, 2); };
  // [count, Hkv, queries, .] and [Hkv, count * queries, .]
  const at::Tensor by_own = q.unflatten(0, {c.count, c.queries}).transpose(1, 2).reshape({c.count, heads, queries, -1});
  const auto to_prefix = [&](const at::Tensor& x) { return x.transpose(0, 1).reshape({heads, c.count * queries, -1}); };
  const auto from_prefix = [&](const at::Tensor& x) { return x.unflatten(1, {c.count, queries}).transpose(0, 1); };

  at::Tensor scores = at::cat({from_prefix(at::matmul(to_prefix(by_own), prefix_k.transpose(1, 2))),
                               at::matmul(by_own, own(k).transpose(2, 3))},
                              -1)
                          .mul_(layout.scale);
  if (layout.soft_cap) scores = at::tanh(scores / *layout.soft_cap) * *layout.soft_cap;
  scores.masked_fill_(hidden_keys(c, group, layout.window, q.device()), -std::numeric_limits<double>::infinity());
  const at::Tensor weights = at::softmax(scores, -1);
  const at::Tensor out = from_prefix(at::matmul(to_prefix(weights.narrow(-1, 0, c.visible)), prefix_v)) +
                         at::matmul(weights.narrow(-1, c.visible, c.rows), own(v));
  return out.unflatten(2, {c.queries, group}).transpose(1, 2).reshape({c.count * c.queries, heads, group, head_dim});
}

}  // namespace

void shared_prefix_attention_composed(const SharedPrefixInputs& inputs, const at::Tensor& out) {
  const auto& [q, k, v, prefix_k, prefix_v, layout] = inputs;
  const int64_t* const rows = layout.rows.const_data_ptr<int64_t>();
  const int64_t* const visible = layout.visible.const_data_ptr<int64_t>();
  const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor wide_prefix_k = prefix_k.to(wide), wide_prefix_v = prefix_v.to(wide);
  int64_t row = 0, query = 0;
  for (int64_t c = 0; c < layout.rows.size(0);) {
    const int64_t queries = layout.queries.value_or(rows[c]);
    const int64_t bytes =
        queries * q.size(1) * q.size(2) * (visible[c] + rows[c]) * static_cast<int64_t>(sizeof(float));
    const int64_t most = std::max<int64_t>(1, kScoreBytes / bytes);
    int64_t end = c + 1;
    while (end < layout.rows.size(0) && end - c < most && rows[end] == rows[c] && visible[end] == visible[c]) ++end;
    const Alike alike{end - c, rows[c], queries, visible[c]};
    const auto own = [&](const at::Tensor& x) { return x.narrow(0, row, alike.count * alike.rows).to(wide); };
    const auto seen = [&](const at::Tensor& x) { return x.narrow(1, 0, alike.visible); };
    const int64_t wanted = alike.count * alike.queries;
    out.narrow(0, query, wanted)
        .copy_(attend(alike, q.narrow(0, query, wanted).to(wide), own(k), own(v), seen(wide_prefix_k),
                      seen(wide_prefix_v), layout));
    row += alike.count * alike.rows;
    query += wanted;
    c = end;
  }
}

}  // namespace titer
