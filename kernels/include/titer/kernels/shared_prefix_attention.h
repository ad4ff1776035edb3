// Attention of many continuations of one prefix, whose keys and values are read where they are and never copied per
// continuation (the idea of Hydragen, arXiv 2402.05099, and of cascade attention, for candidates of different lengths).
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/export.h>

#include <optional>

namespace titer::ops {

/// Continuation c has rows[c] rows of its own, packed one after the other or from first_row[c] on, at the positions
/// visible[c], visible[c] + 1, ... behind the first visible[c] positions of the prefix. Its queries belong to its last
/// rows and see what is not behind them: out = softmax(cap(q kᵀ scale)) v over these positions of the prefix and its
/// own rows. N own rows and M queries in all; H = Hkv G heads, of which G queries share a key.
struct SharedPrefixLayout {
  at::Tensor rows;                 ///< [C] int64 on the CPU, each at least 1
  at::Tensor visible;              ///< [C] int64 on the CPU, in [0, P]
  std::optional<int64_t> queries;  ///< of every continuation, at most its rows; none: one for each own row
  std::optional<int64_t> window;   ///< a query sees this many positions, itself included
  double scale = 1.0;              ///< of the products of queries and keys
  std::optional<double> soft_cap;  ///< cap(x) = soft_cap tanh(x / soft_cap)
  /// [C] int64 on the CPU, in [0, N - rows[c]]: where the rows of a continuation begin in k and v, as in a cache with a
  /// slot for each. None: behind those of the one before, and N is their sum.
  std::optional<at::Tensor> first_row = std::nullopt;
};

/// Scores and sums are float32 (float64 for float64); probabilities of bfloat16 and float16 may be rounded before they
/// meet the values. NaN and infinities reach at least what sees them. Gradients flow to q, k, v, prefix_k and prefix_v;
/// no second derivative. CPU values but float64 do not depend on the number of threads.
/// On the CPU, a kernel computes gradients where there is no prefix, cap and first_row, but for float64. On CUDA one
/// serves values of bfloat16 and float16 whose heads are aligned to 16 bytes, with hd a multiple of 8 up to 256. The
/// rest is composed of torch's products.
///
/// @param q                   [M, Hkv, G, hd], last dimension contiguous; float32, bfloat16, float16 or float64
/// @param k, v                [N, Hkv, hd], dtype of q, last dimension contiguous
/// @param prefix_k, prefix_v  [Hkv, P, hd], dtype of q, last dimension contiguous
/// @return                    [M, Hkv, G, hd], contiguous. Also `titer.ops.shared_prefix_attention`
/// @throws c10::ValueError, c10::TypeError with a message that starts with [shared_prefix_attention]
TITER_EXPORT at::Tensor shared_prefix_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                                const SharedPrefixLayout& layout);

/// The same into `out`, without a gradient, of any strides but a contiguous last dimension, which must not overlap the
/// inputs.
///
/// @return  out
TITER_EXPORT at::Tensor shared_prefix_attention_out(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k,
                                                    const at::Tensor& v, const at::Tensor& prefix_k,
                                                    const at::Tensor& prefix_v, const SharedPrefixLayout& layout);

}  // namespace titer::ops
