// Derivative of linear_cross_entropy. The forward pass accumulates the expected row of the weight beside the
// log-sum-exp, as attention does with its values (arXiv 2205.14135), so that the gradient of hidden needs no logits and
// no second walk over the vocabulary. The gradient of the weight, which attacks do not ask for, computes tiles of
// logits again.
#include "linear_cross_entropy.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace titer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class LinearCrossEntropyFunction : public torch::autograd::Function<LinearCrossEntropyFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight,
                               const at::Tensor& target, bool needs_others_mean) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [loss, lse, best_other, best_other_index, match, others_mean] =
        linear_cross_entropy_forward(hidden, weight, target, needs_others_mean);
    ctx->save_for_backward({hidden, weight, target, loss, lse, best_other_index, others_mean});
    ctx->mark_non_differentiable({best_other_index, match});
    ctx->set_materialize_grads(false);
    return {loss, lse, best_other, best_other_index, match};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto [grad_hidden, grad_weight] =
        linear_cross_entropy_backward({grads[0],
                                       grads[1],
                                       grads[2],
                                       saved[0],
                                       saved[1],
                                       saved[2],
                                       saved[3],
                                       saved[4],
                                       saved[5],
                                       saved[6],
                                       {ctx->needs_input_grad(0), ctx->needs_input_grad(1)}});
    return {grad_hidden, grad_weight, at::Tensor(), at::Tensor()};
  }
};

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_autograd(
    const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target) {
  const bool needs_others_mean = c10::GradMode::is_enabled() && hidden.requires_grad();
  const variable_list outputs = LinearCrossEntropyFunction::apply(hidden, weight, target, needs_others_mean);
  return {outputs[0], outputs[1], outputs[2], outputs[3], outputs[4]};
}

}  // namespace
}  // namespace titer

TORCH_LIBRARY_IMPL(titer, Autograd, m) {
  m.impl("linear_cross_entropy", titer::linear_cross_entropy_autograd);
  // Differentiating these, which a second derivative does, raises "the derivative for 'titer::...' is not implemented".
  m.impl("linear_cross_entropy_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("linear_cross_entropy_backward", torch::autograd::autogradNotImplementedFallback());
}
