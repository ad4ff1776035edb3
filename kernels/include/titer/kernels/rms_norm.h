// Root mean square layer normalisation (arXiv 1910.07467) of packed rows, each read from memory once.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/export.h>

#include <optional>

namespace titer::ops {

/// Where the normalised value is rounded to x's dtype, in which families of models differ.
enum class RmsNormScale {
  kRounded,  ///< before it is multiplied by the weight, and again after: llama, mistral, qwen, phi
  kWide,     ///< once, after it is multiplied by the weight: olmo2
  kOffset,   ///< once, after it is multiplied by 1 + weight: gemma
};

/// out = x / sqrt(mean(x²) + eps) * weight, equation 4 of the paper with the usual eps, over the last dimension.
/// Computed in float32 (float64 for float64) and rounded to x's dtype where `scale` says. A row with a NaN is NaN.
/// With a residual, out = residual + that, rounded once more, as families that normalise what a block gives have it.
/// Gradients flow to x, weight and residual; no second derivative.
///
/// @param x         [N, d], any strides; float32, bfloat16, float16 or float64
/// @param weight    [d], dtype of x
/// @param residual  shape, dtype and device of x, any strides; none where empty
/// @return          contiguous, shape and dtype of x. Also `titer.ops.rms_norm`, where scale is "rounded", "wide"
///                or "offset"
/// @throws c10::ValueError, c10::TypeError with a message that starts with [rms_norm]
TITER_EXPORT at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, RmsNormScale scale,
                                 const std::optional<at::Tensor>& residual = std::nullopt);

/// The same into `out`, without a gradient. Rows of x, residual and out are contiguous, at any distance. out may be x
/// or residual itself, but not overlap them otherwise.
///
/// @return  out
TITER_EXPORT at::Tensor rms_norm_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, double eps,
                                     RmsNormScale scale, const std::optional<at::Tensor>& residual = std::nullopt);

}  // namespace titer::ops
