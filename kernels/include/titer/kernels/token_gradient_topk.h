// The tokens that a gradient promises most of: the first half of a step of Greedy Coordinate Gradient (arXiv
// 2307.15043, section 2.3), without the [S, V] gradient of a one-hot encoding.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/export.h>

#include <cstdint>

namespace titer::ops {

/// The k best tokens of S positions, best first.
struct TokenGradientTopk {
  at::Tensor ids;     ///< [S, k] int64; -1 behind the last allowed token
  at::Tensor scores;  ///< [S, k] float32 (float64 for float64); +inf behind the last allowed token
};

/// For every position, the k allowed tokens v of smallest score gradient · embedding[v], which is how much the loss
/// grows to first order with the weight of v in a one-hot encoding. Among equal scores the lowest token comes first.
/// Where fewer than k tokens are allowed, the rest of a row is -1 and +inf: the shape never depends on values, and
/// nothing waits for a device. A row in which an allowed token's score is not finite is broken: its ids are all -1, its
/// scores NaN. Tokens that are not allowed count for nothing, whatever their embedding holds.
///
/// Walks the vocabulary in tiles and keeps what may still be among the k best. Products of 16-bit numbers are
/// accumulated in float32 and never rounded back. Without a derivative. CPU results are bitwise the same for any number
/// of threads, but for float64, where torch's product decides.
///
/// @param gradient   [S, d] of the loss by the embeddings at the positions, any strides; float32, bfloat16, float16 or
///                   float64
/// @param embedding  [V, d], 1 <= V < 2^31, dtype of gradient, rows contiguous (stride 1 in d); read in place
/// @param allowed    [V] bool
/// @param k          in [1, V]
/// @throws c10::ValueError, c10::TypeError with a message that starts with [token_gradient_topk]. Also
///         `titer.ops.token_gradient_topk`
TITER_EXPORT TokenGradientTopk token_gradient_topk(const at::Tensor& gradient, const at::Tensor& embedding,
                                                   const at::Tensor& allowed, int64_t k);

}  // namespace titer::ops
