// CUDA backend of rope.
#include "rope.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "cuda/rope.cuh"

namespace titer::cuda {
namespace {

at::Tensor& rope_out_cuda(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, at::Tensor& out) {
  check_rope(x, cos, sin, out);
  if (x.numel() == 0) return out;
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  TORCH_CHECK_VALUE(x.size(0) <= kMax && x.numel() / x.size(0) <= kMax,
                    "[rope] at most 2^31 - 1 rows of as many elements, got ", x.sizes());
  const c10::cuda::CUDAGuard guard(x.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const bool is_double = x.scalar_type() == at::kDouble;
  const at::Tensor c = is_double ? cos.to(at::kDouble).contiguous() : cos.contiguous();
  const at::Tensor s = is_double ? sin.to(at::kDouble).contiguous() : sin.contiguous();
  const auto rotate = [&]<typename T, typename Table>(T, Table) {
    C10_CUDA_CHECK((rotate_rows<T, Table>(rope_rows<T, Table>(x, c, s, out), stream)));
  };
  const bool wide_tables = c.scalar_type() == at::kFloat;
  switch (x.scalar_type()) {
    case at::kFloat:
      rotate(float(), float());
      break;
    case at::kDouble:
      rotate(double(), double());
      break;
    case at::kHalf:
      wide_tables ? rotate(__half(), float()) : rotate(__half(), __half());
      break;
    default:
      wide_tables ? rotate(__nv_bfloat16(), float()) : rotate(__nv_bfloat16(), __nv_bfloat16());
  }
  return out;
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) { m.impl("rope.out", titer::cuda::rope_out_cuda); }
