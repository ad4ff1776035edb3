// Linear layers where no gradient is wanted: into a given buffer, the sum with a residual included.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/export.h>

#include <optional>

namespace titer::ops {

/// out = x weightᵀ + bias + residual, without a gradient. Products are summed in float32 (float64 for float64). With
/// bfloat16 on processors with a matrix unit (AMX), results are rounded once, at the end, and do not depend on the
/// number of threads, if k is a multiple of 32, n at least 32, and the weight's last dimension contiguous; subnormal
/// numbers count as zero there. Otherwise torch's GEMM decides, and a bias and a residual are added one after the
/// other.
///
/// @param x         [M, k], last dimension contiguous; float32, bfloat16, float16 or float64
/// @param weight    [n, k], dtype of x, any strides; read in place
/// @param bias      [n], dtype of x; none where empty
/// @param residual  [M, n], dtype of x, last dimension contiguous; none where empty
/// @return          [M, n], contiguous. Also `titer.ops.linear`
/// @throws c10::ValueError, c10::TypeError with a message that starts with [linear]
TITER_EXPORT at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                               const std::optional<at::Tensor>& residual);

/// The same into `out`, whose last dimension is contiguous. out may be the residual itself; it must not overlap the
/// inputs otherwise.
///
/// @return  out
TITER_EXPORT at::Tensor linear_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight,
                                   const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& residual);

}  // namespace titer::ops
