#include "reference/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>

namespace titer::reference {

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                  const std::optional<at::Tensor>& residual) {
  at::Tensor out = at::matmul(x, weight.t());
  if (bias) out = out + *bias;
  if (residual) out = out + *residual;
  return out;
}

}  // namespace titer::reference
