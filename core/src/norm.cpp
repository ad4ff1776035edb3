#include "norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <titer/kernels/rms_norm.h>

namespace titer {
namespace {

ops::RmsNormScale scale_of(Norm norm) {
  switch (norm) {
    case Norm::kRms:
      return ops::RmsNormScale::kRounded;
    case Norm::kRmsOffset:
      return ops::RmsNormScale::kOffset;
    default:
      return ops::RmsNormScale::kWide;
  }
}

}  // namespace

at::Tensor normalise(const at::Tensor& x, const NormWeights& weights, const ModelConfig& config, Workspace* workspace,
                     std::string_view purpose) {
  const at::Tensor& weight = weights.weight;
  if (config.norm == Norm::kLayer) return at::layer_norm(x, weight.sizes(), weight, weights.bias, config.norm_eps);
  const ops::RmsNormScale scale = scale_of(config.norm);
  if (workspace == nullptr) return ops::rms_norm(x, weight, config.norm_eps, scale);
  return ops::rms_norm_out(workspace->take(purpose, x.sizes(), x.options()), x, weight, config.norm_eps, scale);
}

at::Tensor add_normalised(const at::Tensor& residual, const at::Tensor& x, const NormWeights& weights,
                          const ModelConfig& config, Workspace* workspace) {
  if (config.norm == Norm::kLayer) {
    const at::Tensor normal = normalise(x, weights, config, workspace, "post_norm");
    return workspace == nullptr ? residual + normal : residual.add_(normal);
  }
  const ops::RmsNormScale scale = scale_of(config.norm);
  if (workspace == nullptr) return ops::rms_norm(x, weights.weight, config.norm_eps, scale, residual);
  return ops::rms_norm_out(residual, x, weights.weight, config.norm_eps, scale, residual);
}

}  // namespace titer
