// Cross-entropy of predicted tokens, soft-capped logits included.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/linear_cross_entropy.h>

#include <optional>

namespace titer {

/// ops::linear_cross_entropy; where logits x become soft_cap * tanh(x / soft_cap), they are formed, a few rows at a
/// time.
ops::LinearCrossEntropy token_losses(const at::Tensor& hidden, const at::Tensor& lm_head, const at::Tensor& target,
                                     std::optional<double> soft_cap);

}  // namespace titer
