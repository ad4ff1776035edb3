// The definition of batched_lora, composed of plain differentiable torch operations, one run after another. Tests
// compare every backend with it; nothing else may use it.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/batched_lora.h>

namespace titer::reference {

/// Same arguments and result as ops::batched_lora.
at::Tensor batched_lora(const at::Tensor& base, const at::Tensor& x, const ops::LoraBank& bank);

}  // namespace titer::reference
