// Rows that rms_norm normalises: where they lie in memory and how. Torch-free, shared by the backends.
#pragma once

#include <cstdint>

namespace titer {

/// Rows of d contiguous elements, strides are elements from one row to the next.
template <typename T>
struct RmsNormRows {
  const T* x;
  const T* weight;
  const T* residual;  ///< added to the result; null where there is none
  T* out;
  int64_t rows, d;
  int64_t x_stride, residual_stride, out_stride;
  double eps;
  double weight_offset;  ///< added to the weight: 0 or 1
  bool rounds_first;     ///< the normalised value is rounded to T before it is multiplied by the weight
};

/// The same backwards: `rows.out` is the gradient of x.
template <typename T>
struct RmsNormGradRows {
  RmsNormRows<T> rows;
  const T* grad;  ///< of the result
  int64_t grad_stride;
};

}  // namespace titer
