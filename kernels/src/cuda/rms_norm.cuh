// Normalisation of rows. Torch-free: device pointers and a stream in, the launch's error out.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "rms_norm_rows.h"

namespace titer::cuda {

/// T is float, double, __nv_bfloat16 or __half. At least one row; out may be x or residual.
template <typename T>
cudaError_t normalise_rows(const RmsNormRows<T>& rows, cudaStream_t stream);

/// The gradient of x.
template <typename T>
cudaError_t normalise_rows_backward(const RmsNormGradRows<T>& rows, cudaStream_t stream);

}  // namespace titer::cuda
