// Element-wise work on one tile of logits, vectorised with Highway for the instruction set found at run time.
// Torch-free. See token_tile.h for the layout.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/token_tile.h"

namespace titer::cpu {

/// Integer of the width of T, so that token indices live in the same lanes as logits.
template <typename T>
using TokenIndex = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

/// Running softmax statistics, one entry per column: maximum so far, sum of exp(logit - maximum), and the first token
/// that reached the maximum. Starts at -inf, 0, any.
template <typename T>
struct OnlineSoftmax {
  T* max;
  T* sum;
  TokenIndex<T>* argmax;
};

/// Adds the tokens [first_token, first_token + num_tokens) to the statistics. -inf adds nothing; NaN and +inf make the
/// sum NaN, not necessarily at once. Unless `rescale` is null, logits become exp(logit - new maximum) and rescale[c]
/// becomes exp(old maximum - new maximum), the factor for whatever was accumulated before.
void update_online_softmax(float* logits, int64_t num_tokens, int64_t columns, int64_t ld, int64_t first_token,
                           OnlineSoftmax<float> state, float* rescale);
void update_online_softmax(double* logits, int64_t num_tokens, int64_t columns, int64_t ld, int64_t first_token,
                           OnlineSoftmax<double> state, double* rescale);

/// logits[j, c] = scale[c] * exp(logits[j, c] - lse[c])
void scaled_softmax(float* logits, int64_t num_tokens, int64_t columns, int64_t ld, const float* lse,
                    const float* scale);
void scaled_softmax(double* logits, int64_t num_tokens, int64_t columns, int64_t ld, const double* lse,
                    const double* scale);

/// out[c, j] = tile[j, c], out of shape [columns, out_ld]. bfloat16: rounded to nearest even, num_tokens is padded to
/// an even number with zeros, out_ld is even.
void transpose_tile(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, float* out, int64_t out_ld);
void transpose_tile(const double* tile, int64_t num_tokens, int64_t columns, int64_t ld, double* out, int64_t out_ld);
void transpose_tile(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, uint16_t* out, int64_t out_ld);

/// out[j, c] = tile[j, c] rounded to bfloat16 like above
void round_tile(const float* tile, int64_t num_tokens, int64_t columns, int64_t ld, uint16_t* out, int64_t out_ld);

}  // namespace titer::cpu
