// softmax over prefix and own keys at once equals the two partial softmaxes weighted by their log-sum-exps (the merge
// of cascade and flash-decoding attention, arXiv 2205.14135): with w = sigmoid(lse_prefix - lse_own), out = w *
// out_prefix + (1 - w) * out_own. The prefix is never copied per candidate.
#include "shared_prefix_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

namespace titer {
namespace {

// Rows that attend together: bounds what one attention allocates, however many candidates share a first change.
constexpr int64_t kGroupRows = 256;

}  // namespace

SharedPrefixAttention::SharedPrefixAttention(const ModelConfig& config, const KvCache& prefix,
                                             const std::vector<CandidateGroup>& groups, int64_t outputs,
                                             Workspace& workspace)
    : config_(config), prefix_(prefix), outputs_(outputs), workspace_(workspace) {
  std::vector<int64_t> wanted;
  int64_t row = 0;
  for (const CandidateGroup& group : groups) {
    const int64_t together = std::max<int64_t>(kGroupRows / group.rows, 1);
    for (int64_t c = 0; c < group.candidates; c += together)
      groups_.push_back({std::min(together, group.candidates - c), group.rows, group.visible});
    for (int64_t c = 0; c < group.candidates; ++c) {
      row += group.rows;
      for (int64_t i = row - outputs_; i < row; ++i) wanted.push_back(i);
    }
  }
  output_rows_ = at::tensor(wanted, at::kLong).to(prefix.k.device());
}

at::Tensor SharedPrefixAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  at::Tensor out = workspace_.take("attention", q.sizes(), q.options());
  const bool last = layer + 1 == config_.num_layers;
  int64_t row = 0;
  int64_t query_row = 0;
  for (const CandidateGroup& group : groups_) {
    const int64_t rows = group.candidates * group.rows;
    const int64_t query_rows = last ? group.candidates * outputs_ : rows;
    attend_group(group, layer, q.narrow(0, query_row, query_rows), k.narrow(0, row, rows), v.narrow(0, row, rows),
                 out.narrow(0, query_row, query_rows));
    row += rows;
    query_row += query_rows;
  }
  return out.view({q.size(0), -1});
}

void SharedPrefixAttention::attend_group(const CandidateGroup& group, int64_t layer, const at::Tensor& q,
                                         const at::Tensor& k, const at::Tensor& v, at::Tensor out) {
  const int64_t candidates = group.candidates;
  const int64_t query_rows = q.size(0) / candidates;  // per candidate
  const int64_t heads = config_.num_heads / config_.num_kv_heads;
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const auto partial = [&](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                           const at::Tensor& mask) {
    return partial_attention(queries, keys, values, mask, shape.attention_scale, config_.attention_soft_cap);
  };

  const auto own = [&](const at::Tensor& x) { return x.unflatten(0, {candidates, group.rows}).transpose(1, 2); };
  const at::Tensor by_head = q.transpose(0, 1);  // [Hkv, candidates * query_rows, G, hd]
  const at::Tensor own_q = by_head.unflatten(1, {candidates, query_rows}).transpose(0, 1).flatten(2, 3);
  const auto [own_out, own_lse] =
      partial(own_q, own(k), own(v), own_mask(group, query_rows, shape.sliding_window, q.options()));
  // [candidates, Hkv, query_rows * G, ...] -> [candidates * query_rows, Hkv, G, ...]
  const auto from_own = [&](const at::Tensor& x) {
    return x.unflatten(2, {query_rows, heads}).transpose(1, 2).flatten(0, 1);
  };
  if (group.visible == 0) {
    out.copy_(from_own(own_out));
    return;
  }

  at::Tensor mask, blind;
  if (shape.sliding_window && *shape.sliding_window < group.visible + group.rows) {
    const auto options = q.options().dtype(at::kLong);
    const int64_t first = group.visible + group.rows - query_rows;  // position of a candidate's first query
    const at::Tensor query = at::arange(first, first + query_rows, options).unsqueeze(1);
    const at::Tensor hidden = at::arange(group.visible, options).unsqueeze(0).le(query - *shape.sliding_window);
    mask = additive_mask(hidden, q.options()).repeat_interleave(heads, 0).repeat({candidates, 1});
    blind = hidden.all(1).repeat({candidates}).view({-1, 1, 1});  // queries that see nothing of the prefix
  }
  const auto prefix = [&](const at::Tensor& x) { return x.select(0, layer).narrow(2, 0, group.visible); };
  const auto [prefix_out, prefix_lse] =
      partial(by_head.flatten(1, 2).unsqueeze(0), prefix(prefix_.k), prefix(prefix_.v), mask);
  // [1, Hkv, candidates * query_rows * G, ...] -> [candidates * query_rows, Hkv, G, ...]
  const auto from_prefix = [&](const at::Tensor& x) {
    return x.squeeze(0).unflatten(1, {candidates * query_rows, heads}).transpose(0, 1);
  };
  at::Tensor weight = at::sigmoid(from_prefix(prefix_lse) - from_own(own_lse));
  at::Tensor shared = from_prefix(prefix_out);
  if (blind.defined()) {
    weight = weight.masked_fill(blind, 0);
    shared = shared.masked_fill(blind.unsqueeze(-1), 0);
  }
  at::lerp_out(out, from_own(own_out), shared, weight.to(out.scalar_type()).unsqueeze(-1));
}

const at::Tensor& SharedPrefixAttention::own_mask(const CandidateGroup& group, int64_t query_rows,
                                                  std::optional<int64_t> window, const at::TensorOptions& options) {
  at::Tensor& mask = own_masks_[{group.rows, query_rows, window.value_or(0)}];
  if (!mask.defined()) {
    const at::Tensor query = at::arange(group.rows - query_rows, group.rows, options.dtype(at::kLong)).unsqueeze(1);
    const at::Tensor key = at::arange(group.rows, options.dtype(at::kLong)).unsqueeze(0);
    at::Tensor hidden = key.gt(query);
    if (window) hidden.logical_or_(key.le(query - *window));
    // The query heads of a key head are consecutive rows.
    mask = additive_mask(hidden, options).repeat_interleave(config_.num_heads / config_.num_kv_heads, 0);
  }
  return mask;
}

double SharedPrefixAttention::flops() const {
  double pairs_inner = 0;  // (query, key) pairs per head, all layers but the last
  double pairs_last = 0;
  for (const CandidateGroup& group : groups_) {
    const auto keys = static_cast<double>(group.visible + group.rows);
    pairs_inner += keys * static_cast<double>(group.candidates * group.rows);
    pairs_last += keys * static_cast<double>(group.candidates * outputs_);
  }
  const double pairs = pairs_inner * static_cast<double>(config_.num_layers - 1) + pairs_last;
  return 4.0 * pairs * static_cast<double>(config_.num_heads * config_.head_dim);
}

}  // namespace titer
