#include "training/training_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <titer/kernels/shared_prefix_attention.h>

namespace titer {

TrainingAttention::TrainingAttention(const ModelConfig& config, const TrainingBatch& batch)
    : config_(config), batch_(batch), rows_(at::tensor(batch.lengths, at::kLong)), nothing_(at::zeros_like(rows_)) {}

at::Tensor TrainingAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const bool last = layer + 1 == config_.num_layers;
  const at::Tensor no_prefix = at::empty({config_.num_kv_heads, 0, config_.head_dim}, k.options().requires_grad(false));
  return ops::shared_prefix_attention(q, k, v, no_prefix, no_prefix,
                                      {rows_, nothing_, last ? batch_.queries : std::nullopt, shape.sliding_window,
                                       shape.attention_scale, config_.attention_soft_cap})
      .view({q.size(0), -1});
}

}  // namespace titer
