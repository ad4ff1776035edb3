// Rotation of packed heads. Torch-free: device pointers and a stream in, the launch's error out.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "rope_rows.h"

namespace titer::cuda {

/// T and Table: float; double; __nv_bfloat16 or __half, with tables of either that type or float. At least one row;
/// out may be x.
template <typename T, typename Table>
cudaError_t rotate_rows(const RopeRows<T, Table>& heads, cudaStream_t stream);

}  // namespace titer::cuda
