// What the backends and the autograd formula of gated_activation share.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/gated_activation.h>

#include <string_view>
#include <tuple>

#include "gated_activation_rows.h"

namespace titer {

using GatedGrads = std::tuple<at::Tensor, at::Tensor>;  // of gate and of up

/// The activation of a name; the backends get names, because torch.ops.titer.* reaches them without passing the C++
/// entry. For the same reason every backend calls the checks.
ops::GateActivation gate_activation(std::string_view name);
void check_gated_activation(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& out);
void check_gated_activation_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up);

/// Through the dispatcher.
at::Tensor gated_activation_values(const at::Tensor& gate, const at::Tensor& up, std::string_view activation);
GatedGrads gated_activation_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                                     std::string_view activation);

/// Of checked arguments. T is the backend's name for the element type of the tensors.
template <typename T>
GatedRows<T> gated_rows(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& out) {
  return {static_cast<const T*>(gate.const_data_ptr()),
          static_cast<const T*>(up.const_data_ptr()),
          static_cast<T*>(out.mutable_data_ptr()),
          gate.size(0),
          gate.size(1),
          gate.stride(0),
          up.stride(0),
          out.stride(0)};
}

/// The inputs have dense rows, the results are contiguous.
template <typename T>
GatedGradRows<T> gated_grad_rows(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                                 const GatedGrads& results) {
  const auto& [grad_gate, grad_up] = results;
  return {static_cast<const T*>(grad.const_data_ptr()),
          static_cast<const T*>(gate.const_data_ptr()),
          static_cast<const T*>(up.const_data_ptr()),
          static_cast<T*>(grad_gate.mutable_data_ptr()),
          static_cast<T*>(grad_up.mutable_data_ptr()),
          gate.size(0),
          gate.size(1),
          grad.stride(0),
          gate.stride(0),
          up.stride(0)};
}

}  // namespace titer
