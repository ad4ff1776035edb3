// Loads and stores of up to 16 bytes at once, and conversion between what lies in memory and what is computed with.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <initializer_list>

namespace titer::cuda {

inline constexpr int64_t kAccessBytes = 16;

/// kCount consecutive elements, aligned to their size.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T at[kCount];
};

/// What T is computed in.
template <typename T>
struct WideType {
  using Type = float;
};
template <>
struct WideType<double> {
  using Type = double;
};
template <typename T>
using Wide = typename WideType<T>::Type;

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float widen(__half x) { return __half2float(x); }

/// Rounded to nearest even; the second argument only chooses the type.
__device__ inline float narrow(float x, float) { return x; }
__device__ inline double narrow(double x, double) { return x; }
__device__ inline __nv_bfloat16 narrow(float x, __nv_bfloat16) { return __float2bfloat16_rn(x); }
__device__ inline __half narrow(float x, __half) { return __float2half_rn(x); }

inline bool is_aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

inline bool are_divisible(std::initializer_list<int64_t> numbers, int64_t by) {
  for (const int64_t number : numbers) {
    if (number % by != 0) return false;
  }
  return true;
}

}  // namespace titer::cuda
