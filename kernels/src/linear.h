// What the backends of linear share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace titer {

struct LinearInputs {
  const at::Tensor& x;
  const at::Tensor& weight;
  const std::optional<at::Tensor>& bias;
  const std::optional<at::Tensor>& residual;
};

/// Every backend calls this, because torch.ops.titer.* reaches the backends without passing the C++ entry.
void check_linear(const LinearInputs& inputs, const at::Tensor& out);

/// Of checked arguments on any device: torch's GEMM.
void linear_composed(const LinearInputs& inputs, at::Tensor& out);

}  // namespace titer
