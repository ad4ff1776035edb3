// The definition of token_gradient_topk, composed of plain torch operations on all scores. Tests compare every backend
// with it; nothing else may use it.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/token_gradient_topk.h>

namespace titer::reference {

/// Same arguments and results as ops::token_gradient_topk; scores are computed in the dtype of the arguments.
ops::TokenGradientTopk token_gradient_topk(const at::Tensor& gradient, const at::Tensor& embedding,
                                           const at::Tensor& allowed, int64_t k);

}  // namespace titer::reference
