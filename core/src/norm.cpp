#include "norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>

namespace titer {
namespace {

/// What an RMSNorm multiplies by in float32.
at::Tensor wide_scale(const at::Tensor& weight, Norm norm) {
  const at::Tensor wide = weight.to(at::kFloat);
  return norm == Norm::kRmsOffset ? wide + 1.0 : wide;
}

}  // namespace

at::Tensor normalise(const at::Tensor& x, const NormWeights& weights, const ModelConfig& config, Workspace* workspace,
                     std::string_view purpose) {
  const at::Tensor& weight = weights.weight;
  if (config.norm == Norm::kLayer) return at::layer_norm(x, weight.sizes(), weight, weights.bias, config.norm_eps);
  const bool rounds_first = config.norm == Norm::kRms;
  if (workspace == nullptr) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor normal = wide * at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + config.norm_eps);
    return rounds_first ? normal.to(x.scalar_type()) * weight
                        : (normal * wide_scale(weight, config.norm)).to(x.scalar_type());
  }
  const bool is_wide = x.scalar_type() == at::kFloat;
  at::Tensor wide = x;
  if (!is_wide) wide = workspace->take("norm_wide", x.sizes(), x.options().dtype(at::kFloat)).copy_(x);
  at::Tensor scale = at::linalg_vector_norm(wide, 2, /*dim=*/-1, /*keepdim=*/true);  // one pass, no squares in memory
  scale.square_().mul_(1.0 / static_cast<double>(x.size(-1))).add_(config.norm_eps).rsqrt_();
  at::Tensor out = workspace->take(purpose, x.sizes(), x.options());
  const at::Tensor factor = rounds_first ? weight : wide_scale(weight, config.norm);
  if (is_wide) return at::mul_out(out, x, scale).mul_(factor);
  wide.mul_(scale);
  return rounds_first ? out.copy_(wide).mul_(factor) : out.copy_(wide.mul_(factor));
}

}  // namespace titer
