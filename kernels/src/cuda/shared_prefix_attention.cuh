// Attention of continuations of one prefix on tensor cores. Torch-free: device pointers and a stream in, the launch's
// error out.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "continuation.h"

namespace titer::cuda {

inline constexpr int64_t kMaxHeadDim = 256;
inline constexpr int64_t kHeadDimStep = 8;  ///< of its multiples
inline constexpr int64_t kMaxHeads = 65535;
inline constexpr int64_t kMaxPositions = int64_t{1} << 30;

/// Heads of hd contiguous elements. Strides are in elements; every head is aligned to 16 bytes.
template <typename T>
struct QueryHeads {
  T* data;
  int64_t query_stride, head_stride, group_stride;
};
template <typename T>
struct KeyHeads {
  const T* data;
  int64_t row_stride, head_stride;
};

/// T is __nv_bfloat16 or __half.
template <typename T>
struct AttentionHeads {
  QueryHeads<const T> q;  ///< [M, Hkv, G, hd]
  QueryHeads<T> out;
  KeyHeads<T> k, v;                ///< [N, Hkv, hd]
  KeyHeads<T> prefix_k, prefix_v;  ///< [P, Hkv, hd]
  int32_t heads, group;            ///< Hkv, at most kMaxHeads, and G
  int32_t head_dim;                ///< a multiple of kHeadDimStep, at most kMaxHeadDim
  int32_t window;                  ///< positions that a query sees, itself included; at most kMaxPositions
  float scale, soft_cap;           ///< soft_cap 0: none
};

/// M G and N + P are at most kMaxPositions. Rounds probabilities to T.
template <typename T>
cudaError_t attend(const AttentionHeads<T>& heads, const std::vector<Continuation>& continuations, cudaStream_t stream);

}  // namespace titer::cuda
