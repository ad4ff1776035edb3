// The CUDA type of a tensor's elements. For bindings.
#pragma once

#include <c10/core/ScalarType.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace titer::cuda {

/// Calls function(T()) with T one of float, double, __half and __nv_bfloat16.
template <typename Function>
void with_element_type(at::ScalarType dtype, const Function& function) {
  switch (dtype) {
    case at::kFloat:
      return function(float());
    case at::kDouble:
      return function(double());
    case at::kHalf:
      return function(__half());
    default:
      return function(__nv_bfloat16());
  }
}

}  // namespace titer::cuda
