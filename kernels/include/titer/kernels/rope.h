// Rotary position embedding (RoFormer, arXiv 2104.09864) of packed rows in one pass over memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/export.h>

namespace titer::ops {

/// Rotates the pairs (x[i], x[i + r/2]) of the leading r dimensions of every head by the angles of its row, equation 34
/// of the paper in the arrangement of GPT-NeoX and llama; the other hd - r dimensions are copied:
///   out[i]       = x[i] cos[i] - x[i + r/2] sin[i]
///   out[i + r/2] = x[i + r/2] cos[i] + x[i] sin[i]
/// Rounded where torch rounds these formulas, every product and every sum, so that model code in Python is met to the
/// last bit on a CPU: to x's dtype if the tables have it, otherwise float32 tables make 16-bit results that are rounded
/// once. NaN and infinities go where the formulas take them. Gradients flow to x, of any order; cos and sin are
/// constants.
///
/// @param x         [N, hd], [N, H, hd] or [N, Hkv, G, hd], any strides; float32, bfloat16, float16 or float64
/// @param cos, sin  [N, r/2], 0 <= r <= hd, in x's dtype or float32
/// @return          contiguous, shape and dtype of x. Also `titer.ops.rope`
/// @throws c10::ValueError, c10::TypeError with a message that starts with [rope]
TITER_EXPORT at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// The same into `out`, without a gradient. The last dimension of x and out is contiguous, the others may have any
/// strides: x may be a part of a fused projection, out a transposed view. out may be x itself, but not overlap it
/// otherwise.
///
/// @return  out
TITER_EXPORT at::Tensor rope_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& cos,
                                 const at::Tensor& sin);

}  // namespace titer::ops
