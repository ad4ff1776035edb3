#include "generation_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <titer/kernels/shared_prefix_attention.h>

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
  const at::Tensor no_prefix = keys.select(0, first_slot_).narrow(0, 0, 0).transpose(0, 1);
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
    slots.select(0, first_slot_ + i).narrow(0, 0, lengths[i]).copy_(rows.narrow(0, row, lengths[i]));
  }
}

StepAttention::StepAttention(const ModelConfig& config, const KvCache& cache, const std::vector<int64_t>& lengths,
                             Workspace& workspace)
    : config_(config),
      cache_(cache),
      lengths_(at::tensor(lengths, at::kLong) + 1),
      nothing_(at::zeros_like(lengths_)),
      first_rows_(at::arange(lengths_.size(0), lengths_.options()) * cache.capacity()),
      new_rows_((first_rows_ + lengths_ - 1).to(cache.k.device())),
      workspace_(workspace) {}

at::Tensor StepAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor keys = cache_.k.select(0, layer).flatten(0, 1), values = cache_.v.select(0, layer).flatten(0, 1);
  keys.index_copy_(0, new_rows_, k);
  values.index_copy_(0, new_rows_, v);
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const at::Tensor no_prefix = keys.narrow(0, 0, 0).transpose(0, 1);
  const at::Tensor out = workspace_.take("attention", q.sizes(), q.options());
  ops::shared_prefix_attention_out(out, q, keys, values, no_prefix, no_prefix,
                                   {lengths_, nothing_, /*queries=*/1, shape.sliding_window, shape.attention_scale,
                                    config_.attention_soft_cap, first_rows_});
  return out.view({q.size(0), -1});
}

}  // namespace titer
