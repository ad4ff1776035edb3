// out (+)= p · factor for rows of several runs: the end of batched_lora, which memory bounds. Torch-free: device
// pointers and a stream in, the launch's error out.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/vector_access.cuh"

namespace titer::cuda {

/// `runs` runs of `rows` rows each, packed. T is float, double, __nv_bfloat16 or __half.
template <typename T>
struct LowRankUpdate {
  const Wide<T>* p;       ///< [runs, rows, r], contiguous
  const Wide<T>* factor;  ///< [runs, r, d], contiguous
  T* out;                 ///< [runs, rows, d], rows contiguous, out_stride elements from one to the next
  int64_t runs, rows, r, d;
  int64_t out_stride;
  bool accumulate;  ///< adds to out, rounding once
};

/// At least one element of out.
template <typename T>
cudaError_t update_rows(const LowRankUpdate<T>& update, cudaStream_t stream);

}  // namespace titer::cuda
