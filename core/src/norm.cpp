#include "norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
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
  const auto rsqrt_of = [&](const at::Tensor& squares) {
    return at::rsqrt(squares.mean(-1, /*keepdim=*/true) + config.norm_eps);
  };
  if (workspace == nullptr) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor normal = wide * rsqrt_of(wide.square());
    return rounds_first ? normal.to(x.scalar_type()) * weight
                        : (normal * wide_scale(weight, config.norm)).to(x.scalar_type());
  }
  const bool is_wide = x.scalar_type() == at::kFloat;
  at::Tensor wide = workspace->take("norm_wide", x.sizes(), x.options().dtype(at::kFloat));
  const at::Tensor scale = rsqrt_of(is_wide ? at::mul_out(wide, x, x) : wide.copy_(x).square_());
  at::Tensor out = workspace->take(purpose, x.sizes(), x.options());
  const at::Tensor factor = rounds_first ? weight : wide_scale(weight, config.norm);
  if (is_wide) return at::mul_out(out, x, scale).mul_(factor);
  wide.copy_(x).mul_(scale);
  return rounds_first ? out.copy_(wide).mul_(factor) : out.copy_(wide.mul_(factor));
}

}  // namespace titer
