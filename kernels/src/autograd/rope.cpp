// Derivative of rope: a rotation's transpose is the rotation by the opposite angle.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/neg.h>
#include <titer/kernels/rope.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace titer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RopeFunction : public torch::autograd::Function<RopeFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({cos, sin});
    return ops::rope(x, cos, sin);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {ops::rope(grads[0], saved[0], at::neg(saved[1])), at::Tensor(), at::Tensor()};
  }
};

at::Tensor rope_autograd(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  TORCH_CHECK_VALUE(!c10::GradMode::is_enabled() || !(cos.requires_grad() || sin.requires_grad()),
                    "[rope] cos and sin must not require a gradient; detach them");
  return RopeFunction::apply(x, cos, sin);
}

}  // namespace
}  // namespace titer

TORCH_LIBRARY_IMPL(titer, Autograd, m) {
  m.impl("rope", titer::rope_autograd);
  // Differentiating it raises "the derivative for 'titer::rope' is not implemented".
  m.impl("rope.out", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(titer, ADInplaceOrView, m) {
  m.impl("rope.out", torch::autograd::autogradNotImplementedInplaceOrViewFallback());
}
