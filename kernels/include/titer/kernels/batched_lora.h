// Low-rank adapters (LoRA, arXiv 2106.09685) of K runs at once, on the packed rows of all runs: what K fine-tunes on
// one resident base model add to each product of its linear layers.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/export.h>

#include <vector>

namespace titer::ops {

/// The adapters of K runs on one linear layer. Runs of lower rank than r pad theirs with zeros.
struct LoraBank {
  at::Tensor a;               ///< [K, r, d_in] float32 (float64 for float64), any strides
  at::Tensor b;               ///< [K, d_out, r] likewise
  at::Tensor rows;            ///< [K] int64 on the CPU: run k has the next rows[k] of the R rows, perhaps none
  std::vector<double> scale;  ///< [K], alpha / r or alpha / sqrt(r)
};

/// out = base + scale[k] (x a[k]ᵀ) b[k]ᵀ on the rows of run k. base is the layer's product for all runs. The low-rank
/// part is computed to the accuracy of float32 (float64 for float64) whatever the dtype of x, and rounded once, after
/// it is added; from a number that is not finite comes one that is not finite. Gradients flow to base (unchanged), x, a
/// and b, those of a and b in their dtype; no second derivative. On the CPU the rows and gradients of a run are bitwise
/// what they are without the other runs, and the same for any number of threads, but for float64, where torch's product
/// decides. On CUDA torch's setting for float32 products (TF32) holds for float32 and float16.
///
/// The gradient of x is the same operation once more: with a and b transposed and in each other's place, it adds to
/// what the layer's own weight makes of the gradient of out.
///
/// @param base  [R, d_out], any strides; float32, bfloat16, float16 or float64
/// @param x     [R, d_in], any strides, dtype of base
/// @return      contiguous, shape and dtype of base. Also `titer.ops.batched_lora`
/// @throws c10::ValueError, c10::TypeError with a message that starts with [batched_lora]
TITER_EXPORT at::Tensor batched_lora(const at::Tensor& base, const at::Tensor& x, const LoraBank& bank);

/// The same into base itself, with the same gradients: what else has kept base for its own must not need it. Saves an
/// allocation and a pass over memory. base is no expanded tensor, has contiguous rows, at any distance, and overlaps no
/// other argument.
///
/// @return  base. Also `titer.ops.batched_lora_`
TITER_EXPORT at::Tensor batched_lora_(const at::Tensor& base, const at::Tensor& x, const LoraBank& bank);

}  // namespace titer::ops
