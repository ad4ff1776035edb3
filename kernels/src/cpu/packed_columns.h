// Rows of a matrix as the columns of a right operand of block_gemm, where packing is no small part of the work.
// Vectorised with Highway for the instruction set found at run time. bfloat16 values are passed as their bits.
#pragma once

#include <cstdint>

namespace titer::cpu {

inline constexpr int64_t kPackedColumns = 16;  ///< columns come in multiples of these

/// rows [count, inner] become [inner, ld], of which this writes `count` columns, and zeros up to a multiple of
/// kPackedColumns. bfloat16: pairs of rows of the result interleaved, [inner / 2, ld, 2], and what is_packable asks
/// for.
void pack_columns(const float* rows, int64_t row_stride, int64_t count, int64_t inner, float* out, int64_t ld);
void pack_columns(const double* rows, int64_t row_stride, int64_t count, int64_t inner, double* out, int64_t ld);
void pack_columns(const uint16_t* rows, int64_t row_stride, int64_t count, int64_t inner, uint16_t* out, int64_t ld);

}  // namespace titer::cpu
