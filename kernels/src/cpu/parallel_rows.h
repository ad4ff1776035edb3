// What the CPU backends of element-wise operations on rows share.
#pragma once

#include <ATen/Parallel.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstdint>

namespace titer::cpu {

/// Calls function(begin, end) for parts of [0, rows), in several threads where there is enough to do.
///
/// @param elements  of a row
template <typename Function>
void parallel_rows(int64_t rows, int64_t elements, const Function& function) {
  constexpr int64_t kGrainElements = 32768;  // fewer are done before a second thread has woken up
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, elements)), function);
}

/// Calls function(T()) with T what kernels call the elements: float, double, or uint16_t for the bits of bfloat16.
template <typename Function>
void with_element_type(at::ScalarType dtype, const Function& function) {
  switch (dtype) {
    case at::kFloat:
      return function(float());
    case at::kDouble:
      return function(double());
    default:
      return function(uint16_t());
  }
}

}  // namespace titer::cpu
