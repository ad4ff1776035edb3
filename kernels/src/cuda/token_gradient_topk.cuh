// Scores of tokens as 64-bit keys, whose order as integers is that of (score, token): no two are equal, so that any
// algorithm finds the same k smallest. Torch-free: device pointers and a stream in, the launch's error out.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace titer::cuda {

inline constexpr int64_t kNoToken = INT64_MAX;  ///< the key of a token that is not allowed, above all others

/// Keys of the tokens [first_token, first_token + num_tokens); tokens are below 2^31.
///
/// @param scores      [num_rows, num_tokens], contiguous
/// @param allowed     [num_tokens]
/// @param keys        num_rows rows of num_tokens, key_stride apart
/// @param broken      [num_rows], becomes true where the score of an allowed token is not finite
cudaError_t write_keys(const float* scores, int64_t num_rows, int64_t num_tokens, int64_t first_token,
                       const bool* allowed, int64_t* keys, int64_t key_stride, bool* broken, cudaStream_t stream);

/// The tokens and scores of keys: -1 and +inf for kNoToken, -1 and NaN in a broken row.
///
/// @param keys, ids, scores  [num_rows, k], contiguous
cudaError_t read_keys(const int64_t* keys, int64_t num_rows, int64_t k, const bool* broken, int64_t* ids, float* scores,
                      cudaStream_t stream);

}  // namespace titer::cuda
