#include "reference/gated_activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

namespace titer::reference {

at::Tensor gated_activation(const at::Tensor& gate, const at::Tensor& up, ops::GateActivation activation) {
  switch (activation) {
    case ops::GateActivation::kSilu:
      return at::silu(gate) * up;
    case ops::GateActivation::kGelu:
      return at::gelu(gate, "none") * up;
    default:
      return at::gelu(gate, "tanh") * up;
  }
}

}  // namespace titer::reference
