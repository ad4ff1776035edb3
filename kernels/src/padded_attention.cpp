#include "padded_attention.h"

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
#include <ATen/ops/where.h>

#include <limits>

namespace titer {
namespace {

at::Tensor flat_places(const at::Tensor& is_there) { return is_there.flatten().nonzero().squeeze(1); }

}  // namespace

PaddedAttention::PaddedAttention(const PaddedBatch& batch, const SharedPrefixInputs& inputs)
    : batch_(batch),
      in_(inputs),
      count_(batch.size()),
      heads_(inputs.q.size(1)),
      group_(inputs.q.size(2)),
      head_dim_(inputs.q.size(3)),
      wide_(inputs.q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat),
      rows_(column(batch.rows)),
      queries_(column(batch.queries)),
      visible_(column(batch.visible)),
      row_index_(column(batch.first_row) + at::minimum(places(batch.max_rows), rows_ - 1)),
      query_index_(column(batch.first_query) + at::minimum(places(batch.max_queries), queries_ - 1)),
      is_row_(places(batch.max_rows) < rows_),
      is_query_(places(batch.max_queries) < queries_) {
  find_weights();
}

at::Tensor PaddedAttention::column(const std::vector<int64_t>& values) const {
  return at::tensor(values, at::kLong).to(in_.q.device()).unsqueeze(1);
}

at::Tensor PaddedAttention::places(int64_t length) const {
  return at::arange(length, in_.q.options().dtype(at::kLong)).unsqueeze(0);
}

at::Tensor PaddedAttention::padded(const at::Tensor& x, const at::Tensor& index) const {
  return x.index_select(0, index.flatten()).to(wide_).unflatten(0, index.sizes());
}

/// [count, Hkv, queries * G, hd] from [M, Hkv, G, hd]
at::Tensor PaddedAttention::by_query(const at::Tensor& x) const {
  return padded(x, query_index_).transpose(1, 2).reshape({count_, heads_, -1, head_dim_});
}

/// [count, Hkv, rows, hd] from [N, Hkv, hd]
at::Tensor PaddedAttention::by_row(const at::Tensor& x) const { return padded(x, row_index_).transpose(1, 2); }

at::Tensor PaddedAttention::seen(const at::Tensor& x) const { return x.narrow(1, 0, batch_.max_visible).to(wide_); }

/// [Hkv, count * queries, .], which meets the prefix in one product, from [count, Hkv, queries, .], and back.
at::Tensor PaddedAttention::to_prefix(const at::Tensor& x) const {
  return x.transpose(0, 1).reshape({heads_, x.size(0) * x.size(2), x.size(3)});
}

at::Tensor PaddedAttention::from_prefix(const at::Tensor& x) const {
  return x.unflatten(1, {count_, -1}).transpose(0, 1);
}

/// Of every row of `left` with all keys, or values: [count, Hkv, queries, keys]
at::Tensor PaddedAttention::products(const at::Tensor& left, const at::Tensor& of_prefix, const at::Tensor& own) const {
  return at::cat({from_prefix(at::matmul(to_prefix(left), seen(of_prefix).transpose(1, 2))),
                  at::matmul(left, by_row(own).transpose(2, 3))},
                 -1);
}

/// [count, 1, queries, keys], true where a key may not be seen: padding stands behind all queries.
at::Tensor PaddedAttention::hidden_keys() const {
  const at::Tensor behind = visible_ + rows_, in_prefix = places(batch_.max_visible);
  const at::Tensor key =
      at::cat({at::where(in_prefix < visible_, in_prefix, behind), visible_ + places(batch_.max_rows)}, 1).unsqueeze(1);
  const at::Tensor query = (behind - queries_ + at::minimum(places(batch_.max_queries), queries_ - 1))
                               .repeat_interleave(group_, 1)
                               .unsqueeze(2);
  at::Tensor hidden = key.gt(query);
  if (in_.layout.window) hidden.logical_or_(key.le(query - *in_.layout.window));
  return hidden.unsqueeze(1);
}

void PaddedAttention::find_weights() {
  at::Tensor scores = products(by_query(in_.q), in_.prefix_k, in_.k).mul_(in_.layout.scale);
  if (in_.layout.soft_cap) {
    const at::Tensor shrunk = at::tanh(scores / *in_.layout.soft_cap);
    slope_ = 1 - shrunk.square();
    scores = shrunk * *in_.layout.soft_cap;
  }
  scores.masked_fill_(hidden_keys(), -std::numeric_limits<double>::infinity());
  weights_ = at::softmax(scores, -1);
}

void PaddedAttention::attend(const at::Tensor& out) {
  const auto [of_prefix, own] =
      std::pair(weights_.narrow(-1, 0, batch_.max_visible), weights_.narrow(-1, batch_.max_visible, batch_.max_rows));
  const at::Tensor result =
      (from_prefix(at::matmul(to_prefix(of_prefix), seen(in_.prefix_v))) + at::matmul(own, by_row(in_.v)))
          .unflatten(2, {batch_.max_queries, group_})
          .transpose(1, 2)
          .flatten(0, 1);
  const int64_t first = batch_.first_query.front();
  const int64_t end = batch_.first_query.back() + batch_.queries.back();
  out.narrow(0, first, end - first).copy_(result.index_select(0, flat_places(is_query_)));
}

void PaddedAttention::add_gradients(const at::Tensor& grad, const SharedPrefixGrads& sums) {
  const auto& [sum_q, sum_k, sum_v, sum_prefix_k, sum_prefix_v] = sums;
  // What is repeated gets no gradient: its queries have none, its keys no weight.
  const at::Tensor incoming = (padded(grad, query_index_) * is_query_.view({count_, -1, 1, 1, 1}))
                                  .transpose(1, 2)
                                  .reshape({count_, heads_, -1, head_dim_});
  const at::Tensor of_weights = products(incoming, in_.prefix_v, in_.v);
  at::Tensor of_scores = weights_ * (of_weights - (weights_ * of_weights).sum(-1, /*keepdim=*/true));
  if (slope_.defined()) of_scores = of_scores * slope_;
  of_scores = of_scores * in_.layout.scale;

  const at::Tensor queries = by_query(in_.q);
  const auto add_rows = [&](const at::Tensor& sum, const at::Tensor& index, const at::Tensor& is_there,
                            const at::Tensor& values) {  // [count, longest, ...]
    const at::Tensor there = flat_places(is_there);
    sum.index_add_(0, index.flatten().index_select(0, there), values.flatten(0, 1).index_select(0, there));
  };
  const auto add_keys = [&](const at::Tensor& factors, const at::Tensor& rows, const at::Tensor& sum_prefix,
                            const at::Tensor& sum_own) {
    const at::Tensor of_prefix = to_prefix(factors.narrow(-1, 0, batch_.max_visible));
    const at::Tensor own = factors.narrow(-1, batch_.max_visible, batch_.max_rows);
    if (sum_prefix.defined())
      sum_prefix.narrow(1, 0, batch_.max_visible).add_(at::matmul(of_prefix.transpose(1, 2), to_prefix(rows)));
    if (sum_own.defined())
      add_rows(sum_own, row_index_, is_row_, at::matmul(own.transpose(2, 3), rows).transpose(1, 2));
  };
  add_keys(weights_, incoming, sum_prefix_v, sum_v);
  add_keys(of_scores, queries, sum_prefix_k, sum_k);
  if (!sum_q.defined()) return;
  const at::Tensor of_queries =
      from_prefix(at::matmul(to_prefix(of_scores.narrow(-1, 0, batch_.max_visible)), seen(in_.prefix_k))) +
      at::matmul(of_scores.narrow(-1, batch_.max_visible, batch_.max_rows), by_row(in_.k));
  add_rows(sum_q, query_index_, is_query_, of_queries.unflatten(2, {batch_.max_queries, group_}).transpose(1, 2));
}

}  // namespace titer
