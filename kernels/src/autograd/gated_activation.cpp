// Derivative of gated_activation, which the backward pass computes from gate and up again: nothing else is kept.
#include "gated_activation.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

namespace titer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class GatedActivationFunction : public torch::autograd::Function<GatedActivationFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up,
                            const std::string& activation) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({gate, up});
    ctx->saved_data["activation"] = activation;
    return gated_activation_values(gate, up, activation);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto [grad_gate, grad_up] =
        gated_activation_backward(grads[0], saved[0], saved[1], ctx->saved_data["activation"].toStringRef());
    return {grad_gate, grad_up, at::Tensor()};
  }
};

at::Tensor gated_activation_autograd(const at::Tensor& gate, const at::Tensor& up, std::string_view activation) {
  return GatedActivationFunction::apply(gate, up, std::string(activation));
}

}  // namespace
}  // namespace titer

TORCH_LIBRARY_IMPL(titer, Autograd, m) {
  m.impl("gated_activation", titer::gated_activation_autograd);
  // Differentiating these raises "the derivative for 'titer::...' is not implemented".
  m.impl("gated_activation.out", torch::autograd::autogradNotImplementedFallback());
  m.impl("gated_activation_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(titer, ADInplaceOrView, m) {
  m.impl("gated_activation.out", torch::autograd::autogradNotImplementedInplaceOrViewFallback());
}
