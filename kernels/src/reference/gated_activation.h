// The definition of gated_activation, composed of plain differentiable torch operations. Tests compare every backend
// with it; nothing else may use it.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/gated_activation.h>

namespace titer::reference {

/// Same arguments and result as ops::gated_activation, with its roundings.
at::Tensor gated_activation(const at::Tensor& gate, const at::Tensor& up, ops::GateActivation activation);

}  // namespace titer::reference
