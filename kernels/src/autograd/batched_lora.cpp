// Derivative of batched_lora. With p = x aᵀ, which the forward pass keeps, and g the incoming gradient times the scale:
// q = g b, dx = q a, da = qᵀ x, db = gᵀ p; the gradient of base is the incoming one.
#include "batched_lora.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

namespace titer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// In place: adds to base, which it returns.
class BatchedLoraFunction : public torch::autograd::Function<BatchedLoraFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& base, const at::Tensor& x, const at::Tensor& a,
                            const at::Tensor& b, const at::Tensor& rows, const std::vector<double>& scale,
                            bool needs_projected) {
    const at::AutoDispatchBelowAutograd below_autograd;
    const at::Tensor projected = batched_lora_forward_(base, {x, a, b, rows, scale}, needs_projected);
    ctx->mark_dirty({base});
    ctx->save_for_backward({x, a, b, rows, projected});
    ctx->saved_data["scale"] = scale;
    return base;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const std::vector<double> scale = ctx->saved_data["scale"].toDoubleVector();
    const std::array<bool, 3> output_mask{ctx->needs_input_grad(1), ctx->needs_input_grad(2), ctx->needs_input_grad(3)};
    at::Tensor grad_x, grad_a, grad_b;
    if (output_mask[0] || output_mask[1] || output_mask[2]) {
      std::tie(grad_x, grad_a, grad_b) =
          batched_lora_backward(grads[0], {saved[0], saved[1], saved[2], saved[3], scale}, saved[4], output_mask);
    }
    return {grads[0], grad_x, grad_a, grad_b, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor& batched_lora_autograd_(at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                   const at::Tensor& rows, at::ArrayRef<double> scale) {
  const bool needs_projected = c10::GradMode::is_enabled() && b.requires_grad();
  BatchedLoraFunction::apply(base, x, a, b, rows, scale.vec(), needs_projected);
  return base;
}

at::Tensor batched_lora_autograd(const at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                 const at::Tensor& rows, at::ArrayRef<double> scale) {
  at::Tensor out = base.clone(at::MemoryFormat::Contiguous);
  return batched_lora_autograd_(out, x, a, b, rows, scale);
}

}  // namespace
}  // namespace titer

TORCH_LIBRARY_IMPL(titer, Autograd, m) {
  m.impl("batched_lora", titer::batched_lora_autograd);
  m.impl("batched_lora_", titer::batched_lora_autograd_);
  // Differentiating these raises "the derivative for 'titer::...' is not implemented".
  m.impl("batched_lora_forward_", torch::autograd::autogradNotImplementedFallback());
  m.impl("batched_lora_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(titer, ADInplaceOrView, m) {
  m.impl("batched_lora_forward_", torch::autograd::autogradNotImplementedInplaceOrViewFallback());
}
