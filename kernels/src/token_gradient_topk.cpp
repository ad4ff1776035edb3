// Schema, argument checks, meta kernel and C++ entry of token_gradient_topk.
#include "token_gradient_topk.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <titer/kernels/token_gradient_topk.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <limits>

#include "tensor_checks.h"

namespace titer {
namespace {

using Signature = TokenGradientTopkOutputs(const at::Tensor& gradient, const at::Tensor& embedding,
                                           const at::Tensor& allowed, int64_t k);

TokenGradientTopkOutputs token_gradient_topk_meta(const at::Tensor& gradient, const at::Tensor& embedding,
                                                  const at::Tensor& allowed, int64_t k) {
  check_token_gradient_topk(gradient, embedding, allowed, k);
  return empty_token_gradient_topk_outputs(gradient, k);
}

}  // namespace

void check_token_gradient_topk(const at::Tensor& gradient, const at::Tensor& embedding, const at::Tensor& allowed,
                               int64_t k) {
  const auto is_matrix = [](const at::Tensor& t) { return t.layout() == at::kStrided && t.dim() == 2; };
  TORCH_CHECK_VALUE(is_matrix(gradient) && gradient.size(1) >= 1,
                    "[token_gradient_topk] gradient must be a dense matrix [S, d] with d at least 1, got shape ",
                    gradient.sizes(), "; flatten the batch dimensions first");
  check_dtype("token_gradient_topk", {gradient, "gradient"});
  TORCH_CHECK_VALUE(is_matrix(embedding) && embedding.size(1) == gradient.size(1),
                    "[token_gradient_topk] embedding must be a dense matrix [V, ", gradient.size(1),
                    "], as wide as gradient, got shape ", embedding.sizes());
  TORCH_CHECK_TYPE(embedding.scalar_type() == gradient.scalar_type(),
                   "[token_gradient_topk] embedding must have the dtype of gradient, ", gradient.scalar_type(),
                   ", got ", embedding.scalar_type());
  const int64_t vocab_size = embedding.size(0);
  TORCH_CHECK_VALUE(vocab_size >= 1 && vocab_size <= std::numeric_limits<int32_t>::max(),
                    "[token_gradient_topk] embedding must have between 1 and 2^31 - 1 rows, got ", vocab_size);
  TORCH_CHECK_VALUE(
      (embedding.stride(1) == 1 || embedding.size(1) == 1) && embedding.stride(0) >= embedding.size(1),
      "[token_gradient_topk] embedding must have contiguous rows, because it is read in place, got strides ",
      embedding.strides(), "; call .contiguous()");
  TORCH_CHECK_TYPE(allowed.scalar_type() == at::kBool, "[token_gradient_topk] allowed must be bool, got ",
                   allowed.scalar_type());
  TORCH_CHECK_VALUE(allowed.layout() == at::kStrided && allowed.dim() == 1 && allowed.size(0) == vocab_size,
                    "[token_gradient_topk] allowed must have shape [", vocab_size,
                    "], one entry per row of embedding, got ", allowed.sizes());
  TORCH_CHECK_VALUE(embedding.device() == gradient.device(), "[token_gradient_topk] embedding must be on ",
                    gradient.device(), " like gradient, got ", embedding.device());
  TORCH_CHECK_VALUE(allowed.device() == gradient.device(), "[token_gradient_topk] allowed must be on ",
                    gradient.device(), " like gradient, got ", allowed.device());
  TORCH_CHECK_VALUE(k >= 1 && k <= vocab_size, "[token_gradient_topk] k must be in [1, ", vocab_size,
                    "], the rows of embedding, got ", k);
}

TokenGradientTopkOutputs empty_token_gradient_topk_outputs(const at::Tensor& gradient, int64_t k) {
  const at::ScalarType wide = gradient.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return {at::empty({gradient.size(0), k}, gradient.options().dtype(at::kLong)),
          at::empty({gradient.size(0), k}, gradient.options().dtype(wide))};
}

namespace ops {

TokenGradientTopk token_gradient_topk(const at::Tensor& gradient, const at::Tensor& embedding,
                                      const at::Tensor& allowed, int64_t k) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::token_gradient_topk", "").typed<Signature>();
  auto [ids, scores] = op.call(gradient, embedding, allowed, k);
  return {std::move(ids), std::move(scores)};
}

}  // namespace ops
}  // namespace titer

TORCH_LIBRARY_FRAGMENT(titer, m) {
  m.def("token_gradient_topk(Tensor gradient, Tensor embedding, Tensor allowed, int k) -> (Tensor ids, Tensor scores)");
}

TORCH_LIBRARY_IMPL(titer, Meta, m) { m.impl("token_gradient_topk", titer::token_gradient_topk_meta); }

// Differentiating it raises "the derivative for 'titer::token_gradient_topk' is not implemented".
TORCH_LIBRARY_IMPL(titer, Autograd, m) {
  m.impl("token_gradient_topk", torch::autograd::autogradNotImplementedFallback());
}
