#include "reference/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>

namespace titer::reference {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, ops::RmsNormScale scale,
                    const std::optional<at::Tensor>& residual) {
  const at::ScalarType dtype = x.scalar_type();
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor values = x.to(wide);
  const at::Tensor normal = values * at::rsqrt(values.square().mean(-1, /*keepdim=*/true) + eps);
  const double offset = scale == ops::RmsNormScale::kOffset ? 1 : 0;
  const at::Tensor out = scale == ops::RmsNormScale::kRounded ? normal.to(dtype) * weight
                                                              : (normal * (weight.to(wide) + offset)).to(dtype);
  return residual ? *residual + out : out;
}

}  // namespace titer::reference
