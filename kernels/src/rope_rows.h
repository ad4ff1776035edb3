// Where the heads that rope rotates lie in memory. Torch-free, shared by the backends.
#pragma once

#include <cstdint>

namespace titer {

/// Distances in elements between rows and between heads, whose indices are (outer, inner).
struct RopeStrides {
  int64_t row;
  int64_t outer;
  int64_t inner;
};

/// Heads [rows, outer, inner] of 2 * half + rest contiguous elements each. Tables have `half` contiguous elements a
/// row.
template <typename T, typename Table>
struct RopeRows {
  const T* x;
  T* out;
  const Table* cos;
  const Table* sin;
  int64_t rows, outer, inner, half, rest;
  RopeStrides x_strides, out_strides;
  int64_t cos_stride, sin_stride;
};

}  // namespace titer
