// Derivative of rms_norm. With n = x / rms(x), which the backward pass computes again from x, and g the incoming
// gradient times the scale: dx = (g - n mean(g n)) / rms(x), dweight = sum over rows of incoming * n. The residual's is
// the incoming one.
#include "rms_norm.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

namespace titer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps,
                            const std::string& scale, const std::optional<at::Tensor>& residual) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["has_residual"] = residual.has_value();
    return rms_norm_values({x, weight, eps, scale, residual});
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const std::string scale = ctx->saved_data["scale"].toStringRef();
    const auto [grad_x, grad_weight] =
        rms_norm_backward(grads[0], {saved[0], saved[1], ctx->saved_data["eps"].toDouble(), scale},
                          {ctx->needs_input_grad(0), ctx->needs_input_grad(1)});
    const bool wants_residual = ctx->saved_data["has_residual"].toBool() && ctx->needs_input_grad(2);
    return {grad_x, grad_weight, at::Tensor(), at::Tensor(), wants_residual ? grads[0] : at::Tensor()};
  }
};

at::Tensor rms_norm_autograd(const at::Tensor& x, const at::Tensor& weight, double eps, std::string_view scale,
                             const std::optional<at::Tensor>& residual) {
  return RmsNormFunction::apply(x, weight, eps, std::string(scale), residual);
}

}  // namespace
}  // namespace titer

TORCH_LIBRARY_IMPL(titer, Autograd, m) {
  m.impl("rms_norm", titer::rms_norm_autograd);
  // Differentiating these raises "the derivative for 'titer::...' is not implemented".
  m.impl("rms_norm.out", torch::autograd::autogradNotImplementedFallback());
  m.impl("rms_norm_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(titer, ADInplaceOrView, m) {
  m.impl("rms_norm.out", torch::autograd::autogradNotImplementedInplaceOrViewFallback());
}
