// The end of a tile of a linear layer: transposed, with bias and residual added, rounded once. Vectorised with Highway
// for the instruction set found at run time. Torch-free; bfloat16 values are passed as their bits.
#pragma once

#include <cstdint>

namespace titer::cpu {

/// Where a tile goes: rows of a matrix at some distance; `bias` and `residual` are null where there is none.
struct LinearOutput {
  const uint16_t* bias;
  const uint16_t* residual;
  int64_t residual_stride;
  uint16_t* out;
  int64_t out_stride;
};

/// out[r, j] = tile[j, r] + bias[j] + residual[r, j] for `rows` columns of a tile [outputs, ld]. out may be residual.
void finish_linear_tile(const float* tile, int64_t outputs, int64_t rows, int64_t ld, const LinearOutput& to);

}  // namespace titer::cpu
