#include "promising_tokens.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <titer/kernels/token_gradient_topk.h>

#include <algorithm>

#include "pass_guard.h"

namespace titer {

at::Tensor promising_tokens(const CausalLM& model, int64_t slot_length, const at::Tensor& gradient,
                            const at::Tensor& allowed, int64_t k) {
  const ModelConfig& config = model.config();
  TORCH_CHECK_VALUE(gradient.dim() == 2 && gradient.size(0) == slot_length && gradient.size(1) == config.hidden_size,
                    "[session] a gradient of the slot's embeddings must have shape [", slot_length, ", ",
                    config.hidden_size, "], got ", gradient.sizes());
  TORCH_CHECK_TYPE(gradient.is_floating_point(), "[session] a gradient must be of floating point, got ",
                   gradient.scalar_type());
  TORCH_CHECK_TYPE(allowed.scalar_type() == at::kBool, "[session] allowed must be bool, got ", allowed.scalar_type());
  TORCH_CHECK_VALUE(allowed.dim() == 1, "[session] allowed must have one dimension, got shape ", allowed.sizes());
  TORCH_CHECK_VALUE(k >= 1, "[session] k must be at least 1, got ", k);
  const PassGuard guard(/*gradients=*/false);
  const int64_t known = std::min(allowed.size(0), config.vocab_size);
  const at::Tensor permitted = at::zeros({config.vocab_size}, at::kBool);
  permitted.narrow(0, 0, known).copy_(allowed.narrow(0, 0, known));
  const int64_t kept = std::min(k, permitted.sum().item<int64_t>());
  if (kept == 0) return at::zeros({slot_length, 0}, at::kLong);
  const at::Tensor& embedding = model.weights().embedding;
  // The order of a row does not depend on its scale, but what float16 can hold does. A zero row stays as it is.
  const at::Tensor largest = gradient.abs().amax(1, /*keepdim=*/true);
  const at::Tensor scaled = gradient / largest.masked_fill(largest.eq(0), 1);
  const at::Tensor ids =
      ops::token_gradient_topk(scaled.to(embedding.options()), embedding, permitted.to(model.device()), kept)
          .ids.to(at::kCPU);
  TORCH_CHECK_VALUE(ids.min().item<int64_t>() >= 0, "[session] the token gradient is not finite");
  return ids;
}

}  // namespace titer
