// The definition of linear, composed of plain torch operations. Tests compare every backend with it; nothing else may
// use it.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace titer::reference {

/// Same arguments and result as ops::linear.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                  const std::optional<at::Tensor>& residual);

}  // namespace titer::reference
