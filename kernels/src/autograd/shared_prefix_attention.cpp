// Derivative of shared_prefix_attention. The backward pass computes the weights p again. With g the incoming gradient
// and s the scaled scores: dv = pᵀ g, ds = p (g vᵀ - sum(p g vᵀ)) cap'(s), dq = scale ds k, dk = scale dsᵀ q.
#include "shared_prefix_attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace titer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<at::Tensor>;

class SharedPrefixAttentionFunction : public torch::autograd::Function<SharedPrefixAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& prefix_k, const at::Tensor& prefix_v, const at::Tensor& rows,
                            const at::Tensor& visible, std::optional<int64_t> queries, std::optional<int64_t> window,
                            double scale, std::optional<double> soft_cap, const Optional& first_row) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({q, k, v, prefix_k, prefix_v, rows, visible, first_row.value_or(at::Tensor())});
    ctx->saved_data["queries"] = queries;
    ctx->saved_data["window"] = window;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["soft_cap"] = soft_cap;
    return shared_prefix_attention_values(
        {q, k, v, prefix_k, prefix_v, {rows, visible, queries, window, scale, soft_cap, first_row}});
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    std::array<bool, 5> output_mask{};
    for (size_t i = 0; i < output_mask.size(); ++i) output_mask[i] = ctx->needs_input_grad(i);
    const ops::SharedPrefixLayout layout{saved[5],
                                         saved[6],
                                         ctx->saved_data["queries"].toOptional<int64_t>(),
                                         ctx->saved_data["window"].toOptional<int64_t>(),
                                         ctx->saved_data["scale"].toDouble(),
                                         ctx->saved_data["soft_cap"].toOptional<double>(),
                                         saved[7].defined() ? Optional(saved[7]) : std::nullopt};
    const auto [q, k, v, prefix_k, prefix_v] = shared_prefix_attention_backward(
        grads[0], {saved[0], saved[1], saved[2], saved[3], saved[4], layout}, output_mask);
    variable_list out(12);
    out[0] = q;
    out[1] = k;
    out[2] = v;
    out[3] = prefix_k;
    out[4] = prefix_v;
    return out;
  }
};

at::Tensor shared_prefix_attention_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                            const at::Tensor& rows, const at::Tensor& visible,
                                            std::optional<int64_t> queries, std::optional<int64_t> window, double scale,
                                            std::optional<double> soft_cap, const Optional& first_row) {
  return SharedPrefixAttentionFunction::apply(q, k, v, prefix_k, prefix_v, rows, visible, queries, window, scale,
                                              soft_cap, first_row);
}

}  // namespace
}  // namespace titer

TORCH_LIBRARY_IMPL(titer, Autograd, m) {
  m.impl("shared_prefix_attention", titer::shared_prefix_attention_autograd);
  // Differentiating these raises "the derivative for 'titer::...' is not implemented".
  m.impl("shared_prefix_attention.out", torch::autograd::autogradNotImplementedFallback());
  m.impl("shared_prefix_attention_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(titer, ADInplaceOrView, m) {
  m.impl("shared_prefix_attention.out", torch::autograd::autogradNotImplementedInplaceOrViewFallback());
}
