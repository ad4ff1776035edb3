// CUDA backend of rms_norm.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "cuda/element_type.h"
#include "cuda/rms_norm.cuh"
#include "rms_norm.h"
#include "tensor_checks.h"

namespace titer::cuda {
namespace {

void check_rows(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.size(0) <= std::numeric_limits<int32_t>::max(), "[rms_norm] at most 2^31 - 1 rows, got ",
                    x.size(0));
}

at::Tensor& rms_norm_out_cuda(const at::Tensor& x, const at::Tensor& weight, double eps, std::string_view scale,
                              const std::optional<at::Tensor>& residual, at::Tensor& out) {
  check_rms_norm({x, weight, eps, scale, residual}, out);
  check_rows(x);
  if (x.numel() == 0) return out;
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense_weight = weight.contiguous();
  with_element_type(x.scalar_type(), [&]<typename T>(T) {
    C10_CUDA_CHECK(normalise_rows(rms_norm_rows<T>({x, dense_weight, eps, scale, residual}, out),
                                  c10::cuda::getCurrentCUDAStream().stream()));
  });
  return out;
}

RmsNormGrads rms_norm_backward_cuda(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, double eps,
                                    std::string_view scale, std::array<bool, 2> output_mask) {
  check_rms_norm_backward(grad, {x, weight, eps, scale});
  check_rows(x);
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor grad_x, grad_weight;
  if (output_mask[0]) grad_x = at::empty(x.sizes(), x.options());
  if (output_mask[0] && x.numel() > 0) {
    const at::Tensor rows = with_dense_rows(x), dense_grad = with_dense_rows(grad), dense_weight = weight.contiguous();
    with_element_type(x.scalar_type(), [&]<typename T>(T) {
      C10_CUDA_CHECK(normalise_rows_backward(
          RmsNormGradRows<T>{rms_norm_rows<T>({rows, dense_weight, eps, scale}, grad_x),
                             static_cast<const T*>(dense_grad.const_data_ptr()), dense_grad.stride(0)},
          c10::cuda::getCurrentCUDAStream().stream()));
    });
  }
  if (output_mask[1]) grad_weight = rms_norm_grad_weight(grad, {x, weight, eps, scale});
  return {grad_x, grad_weight};
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) {
  m.impl("rms_norm.out", titer::cuda::rms_norm_out_cuda);
  m.impl("rms_norm_backward", titer::cuda::rms_norm_backward_cuda);
}
