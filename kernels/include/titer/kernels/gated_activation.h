// The gate of the MLP variants SwiGLU and GEGLU (arXiv 2002.05202) in one pass over memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/export.h>

namespace titer::ops {

/// What the gate passes through: SwiGLU has silu, GEGLU one of the forms of GELU (arXiv 1606.08415).
enum class GateActivation {
  kSilu,      ///< x / (1 + exp(-x))
  kGelu,      ///< x (1 + erf(x / sqrt(2))) / 2
  kGeluTanh,  ///< x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³))) / 2
};

/// out = activation(gate) * up, element by element. Computed in float32 (float64 for float64); 16-bit values are
/// rounded after the activation and after the product, as model code in Python does. NaN stays NaN; infinities give
/// something that is not finite. Gradients flow to gate and up; no second derivative.
///
/// @param gate, up  [N, f], any strides; float32, bfloat16, float16 or float64, both the same
/// @return          contiguous, shape and dtype of gate. Also `titer.ops.gated_activation`, where activation is
///                  "silu", "gelu" or "gelu_tanh"
/// @throws c10::ValueError, c10::TypeError with a message that starts with [gated_activation]
TITER_EXPORT at::Tensor gated_activation(const at::Tensor& gate, const at::Tensor& up, GateActivation activation);

/// The same into `out`, without a gradient. Rows are contiguous, at any distance: gate and up may be the halves of a
/// fused projection. out may be gate or up itself, but not overlap them otherwise.
///
/// @return  out
TITER_EXPORT at::Tensor gated_activation_out(const at::Tensor& out, const at::Tensor& gate, const at::Tensor& up,
                                             GateActivation activation);

}  // namespace titer::ops
