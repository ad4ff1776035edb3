// The definition of linear_cross_entropy, composed of plain differentiable torch operations on full logits. Tests
// compare every backend with it; nothing else may use it.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/linear_cross_entropy.h>

namespace titer::reference {

/// Same arguments and results as ops::linear_cross_entropy; everything is computed in the dtype of the arguments.
ops::LinearCrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                             const at::Tensor& target);

}  // namespace titer::reference
