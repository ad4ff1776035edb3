// The element-wise end of batched_lora, vectorised with Highway for the instruction set found at run time. Torch-free;
// bfloat16 values are passed as their bits.
#pragma once

#include <cstdint>

namespace titer::cpu {

/// out = sums, or out += sums if `accumulate`, computed in the type of sums and rounded once.
///
/// @param sums        [rows, width], contiguous
/// @param out_stride  elements from one row to the next
void round_rows(const float* sums, int64_t rows, int64_t width, float* out, int64_t out_stride, bool accumulate);
void round_rows(const double* sums, int64_t rows, int64_t width, double* out, int64_t out_stride, bool accumulate);
void round_rows(const float* sums, int64_t rows, int64_t width, uint16_t* out, int64_t out_stride, bool accumulate);

}  // namespace titer::cpu
