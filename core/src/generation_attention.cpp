#include "generation_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <titer/kernels/shared_prefix_attention.h>

#include <algorithm>

namespace titer {

PromptsAttention::PromptsAttention(const ModelConfig& config, const KvCache& cache, int64_t first_slot,
                                   const std::vector<int64_t>& lengths, Workspace& workspace)
    : config_(config),
      cache_(cache),
      first_slot_(first_slot),
      lengths_(at::tensor(lengths, at::kLong)),
      nothing_(at::zeros_like(lengths_)),
      last_rows_((lengths_.cumsum(0) - 1).to(cache.k.device())),
      workspace_(workspace) {}

at::Tensor PromptsAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor keys = cache_.k.select(0, layer);
  store(k, keys);
  store(v, cache_.v.select(0, layer));
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const bool last = layer + 1 == config_.num_layers;
  const at::Tensor no_prefix = keys.select(0, first_slot_).narrow(1, 0, 0);
  const at::Tensor out = workspace_.take("attention", q.sizes(), q.options());
  ops::shared_prefix_attention_out(out, q, k, v, no_prefix, no_prefix,
                                   {lengths_, nothing_, last ? std::make_optional<int64_t>(1) : std::nullopt,
                                    shape.sliding_window, shape.attention_scale, config_.attention_soft_cap});
  return out.view({q.size(0), -1});
}

void PromptsAttention::store(const at::Tensor& rows, const at::Tensor& slots) const {
  const int64_t* const lengths = lengths_.const_data_ptr<int64_t>();
  int64_t row = 0;
  for (int64_t i = 0; i < lengths_.size(0); row += lengths[i++]) {
    slots.select(0, first_slot_ + i).narrow(1, 0, lengths[i]).copy_(rows.narrow(0, row, lengths[i]).transpose(0, 1));
  }
}

StepAttention::StepAttention(const ModelConfig& config, const KvCache& cache, const std::vector<int64_t>& lengths)
    : config_(config),
      cache_(cache),
      slots_(at::arange(static_cast<int64_t>(lengths.size()), cache.k.options().dtype(at::kLong))),
      positions_(at::tensor(lengths, at::kLong).to(cache.k.device())) {
  const auto batch = static_cast<int64_t>(lengths.size());
  longest_ = *std::max_element(lengths.begin(), lengths.end()) + 1;
  for (const LayerConfig& layer : config.layers) {
    at::Tensor& mask = masks_[layer.sliding_window.has_value()];
    if (mask.defined()) continue;
    const at::Tensor key = at::arange(longest_, cache.k.options().dtype(at::kLong)).unsqueeze(0);
    const at::Tensor query = positions_.unsqueeze(1);
    at::Tensor hidden = key.gt(query);
    if (layer.sliding_window) hidden.logical_or_(key.le(query - *layer.sliding_window));
    mask = additive_mask(hidden.view({batch, 1, 1, longest_}), cache.k.options());
  }
}

at::Tensor StepAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t batch = slots_.size(0);
  at::Tensor keys = cache_.k.select(0, layer);
  at::Tensor values = cache_.v.select(0, layer);
  keys.transpose(1, 2).index_put_({slots_, positions_}, k);
  values.transpose(1, 2).index_put_({slots_, positions_}, v);
  // The query heads that share a key head are rows of one small matrix: nothing is expanded.
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const at::Tensor out =
      attention(q, keys.narrow(0, 0, batch).narrow(2, 0, longest_), values.narrow(0, 0, batch).narrow(2, 0, longest_),
                masks_[shape.sliding_window.has_value()], shape.attention_scale, config_.attention_soft_cap);
  return out.reshape({batch, -1});
}

}  // namespace titer
