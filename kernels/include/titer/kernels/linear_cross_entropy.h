// Cross-entropy of a linear layer over a large vocabulary, without the [R, V] logits. One pass gives what the
// cross-entropy, Carlini-Wagner and mellowmax objectives of prompt attacks and the early-stop test need.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/export.h>

namespace titer::ops {

/// What one pass over the logits `hidden · weightᵀ` says about R rows. A logit that is NaN or +inf makes its row's
/// loss, lse and best_other NaN and its match false; -inf is an ordinary value (probability zero).
struct LinearCrossEntropy {
  at::Tensor loss;              ///< [R] negative log-likelihood of the target, nats; accurate also far below 1e-7
  at::Tensor lse;               ///< [R] log-sum-exp of all logits; the target's own logit is lse - loss
  at::Tensor best_other;        ///< [R] largest logit except the target's
  at::Tensor best_other_index;  ///< [R] int64, token of best_other; the lowest one if several tie
  at::Tensor match;             ///< [R] bool, the target is the argmax; among equal logits the lowest token wins
};

/// Walks the vocabulary in tiles that stay in cache and keeps a running maximum and sum per row (online softmax,
/// arXiv 1805.02867); Cut Cross-Entropy (arXiv 2411.09009) does the same on GPUs. Gradients flow from loss, lse and
/// best_other to hidden and weight. Where hidden requires one, the same walk also accumulates the expected row of the
/// weight, so that the backward pass reads the weight for R rows only and needs no logits; only a weight that requires
/// a gradient has its tiles computed again. No second derivative.
///
/// R rows, hidden size d >= 1, vocabulary 2 <= V < 2^31; R * V may pass 2^31. dtypes: float32, bfloat16, float16,
/// float64, the same for both matrices. Logits, sums and the three floating-point outputs are float32 (float64 for
/// float64): products of 16-bit numbers are accumulated in float32 and never rounded back. Without a gradient, CPU
/// results but those of float64 are bitwise the same for any number of threads. Also `titer.ops.linear_cross_entropy`.
///
/// @param hidden  [R, d], any strides
/// @param weight  [V, d], rows contiguous (stride 1 in d); read in place, may be the tied embedding
/// @param target  [R] int64 in [0, V). On CUDA the range is not checked, which would wait for the device: a row whose
///                target lies outside gets loss NaN
/// @throws c10::ValueError, c10::TypeError, c10::IndexError with a message that starts with [linear_cross_entropy]
///
/// @code
/// const auto [loss, lse, best_other, best_other_index, match] =
///     titer::ops::linear_cross_entropy(hidden, weight, target);
///
/// loss.mean().backward();  // cross-entropy
///
/// const at::Tensor margin = best_other - (lse - loss);  // Carlini-Wagner: negative where the target wins
/// @endcode
TITER_EXPORT LinearCrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                                     const at::Tensor& target);

}  // namespace titer::ops
