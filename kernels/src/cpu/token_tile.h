// Tiles of scores: products of consecutive tokens' rows of a matrix [V, d] with consecutive rows of a small one (hidden
// states, gradients), as the CPU operations over a vocabulary reduce them. Torch-free.
//
// A tile is stored transposed, [num_tokens, ld]: tokens in rows, rows of the small matrix in columns. A SIMD lane then
// belongs to one row of the small matrix, and no reduction crosses lanes. `columns` is a multiple of kTileColumnAlign
// and at most ld. T is float or double; bfloat16 values are passed as their bits.
#pragma once

#include <cstdint>

namespace titer::cpu {

inline constexpr int64_t kTileTokens = 128;  ///< with kTileRows: 32 KiB of float scores, inside the L1 cache
inline constexpr int64_t kTileRows = 64;
inline constexpr int64_t kTileColumnAlign = 16;

}  // namespace titer::cpu
