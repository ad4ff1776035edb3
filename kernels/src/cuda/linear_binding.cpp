// CUDA backend of linear: cuBLAS, through torch.
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "linear.h"

namespace titer::cuda {
namespace {

at::Tensor& linear_out_cuda(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& residual, at::Tensor& out) {
  const LinearInputs inputs{x, weight, bias, residual};
  check_linear(inputs, out);
  const c10::cuda::CUDAGuard guard(x.device());
  linear_composed(inputs, out);
  return out;
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) { m.impl("linear.out", titer::cuda::linear_out_cuda); }
