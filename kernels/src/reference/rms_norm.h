// The definition of rms_norm, composed of plain differentiable torch operations. Tests compare every backend with it;
// nothing else may use it.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/rms_norm.h>

namespace titer::reference {

/// Same arguments and result as ops::rms_norm, with its roundings.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, ops::RmsNormScale scale,
                    const std::optional<at::Tensor>& residual = std::nullopt);

}  // namespace titer::reference
