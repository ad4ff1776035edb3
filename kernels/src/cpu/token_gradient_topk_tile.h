// Element-wise work on one tile of scores, vectorised with Highway for the instruction set found at run time.
// Torch-free. See token_tile.h for the layout.
#pragma once

#include <cstdint>

#include "cpu/token_tile.h"

namespace titer::cpu {

/// Place of a score in its tile.
struct TilePlace {
  int32_t token, column;
};

/// Finds the scores of allowed tokens that lie below their column's threshold: writes their places, those of a column
/// by ascending token, and returns how many there are. broken[c] is left as it is where the column's scores of allowed
/// tokens are finite and becomes NaN otherwise.
///
/// @param allowed  [num_tokens]
/// @param places   room for num_tokens * columns
int64_t scores_below(const float* scores, int64_t num_tokens, int64_t columns, int64_t ld, const bool* allowed,
                     const float* threshold, float* broken, TilePlace* places);
int64_t scores_below(const double* scores, int64_t num_tokens, int64_t columns, int64_t ld, const bool* allowed,
                     const double* threshold, double* broken, TilePlace* places);

}  // namespace titer::cpu
