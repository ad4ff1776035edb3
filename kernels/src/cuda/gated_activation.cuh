// Gates of rows. Torch-free: device pointers and a stream in, the launch's error out.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "gated_activation_rows.h"

namespace titer::cuda {

enum class Gate { kSilu, kGelu, kGeluTanh };

/// T is float, double, __nv_bfloat16 or __half. At least one element; out may be gate or up.
template <typename T>
cudaError_t gate_rows(const GatedRows<T>& rows, Gate gate, cudaStream_t stream);

template <typename T>
cudaError_t gate_rows_backward(const GatedGradRows<T>& rows, Gate gate, cudaStream_t stream);

}  // namespace titer::cuda
