// Rows that gated_activation reads and writes. Torch-free, shared by the backends.
#pragma once

#include <cstdint>

namespace titer {

/// [rows, width] elements; in a row they are contiguous, strides are elements from one row to the next.
template <typename T>
struct GatedRows {
  const T* gate;
  const T* up;
  T* out;
  int64_t rows, width;
  int64_t gate_stride, up_stride, out_stride;
};

/// Gradients of the same; both results are dense.
template <typename T>
struct GatedGradRows {
  const T* grad;  ///< of the result
  const T* gate;
  const T* up;
  T* grad_gate;
  T* grad_up;
  int64_t rows, width;
  int64_t grad_stride, gate_stride, up_stride;
};

}  // namespace titer
