// What the backends and the autograd formula of batched_lora share.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

namespace titer {

/// The op's arguments but base; see the public header.
struct LoraInputs {
  const at::Tensor& x;
  const at::Tensor& a;
  const at::Tensor& b;
  const at::Tensor& rows;
  at::ArrayRef<double> scale;
};

using LoraGrads = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // of x, a and b

/// dtype of a, b and projected.
at::ScalarType lora_accumulator(at::ScalarType dtype);

/// Every backend calls these, because torch.ops.titer.* reaches the backends without passing the C++ entry. base is
/// written.
void check_batched_lora(const at::Tensor& base, const LoraInputs& inputs);
/// projected is undefined where the gradient of b is not asked for.
void check_batched_lora_backward(const at::Tensor& grad, const LoraInputs& inputs, const at::Tensor& projected,
                                 std::array<bool, 3> output_mask);

/// Uninitialised, of the inputs' shapes and dtypes; undefined where not asked for.
LoraGrads empty_lora_grads(const LoraInputs& inputs, std::array<bool, 3> output_mask);

/// Both ops through the dispatcher. The forward one adds to base and returns `projected`, [R, r] x a[k]ᵀ, which the
/// gradient of b needs: undefined unless asked for. Gradients are undefined where output_mask does not ask for them.
at::Tensor batched_lora_forward_(at::Tensor base, const LoraInputs& inputs, bool needs_projected);
LoraGrads batched_lora_backward(const at::Tensor& grad, const LoraInputs& inputs, const at::Tensor& projected,
                                std::array<bool, 3> output_mask);

}  // namespace titer
