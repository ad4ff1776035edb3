// The language that kernels are written in, as far as they use it, for a compiler of plain C++.
#pragma once

#include <cuda_runtime_api.h>
#include <math.h>  // as in CUDA, exp and its kin are overloaded outside of std, too

#include <algorithm>
#include <bit>
#include <cstdint>
#include <source_location>

#include "thread_block.h"

// One block runs at a time, so what is static is its own. It holds what blocks before have left there.
#undef __shared__
#define __shared__ static

#undef __launch_bounds__
#define __launch_bounds__(...)

using std::max;
using std::min;

inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  titer::cuda_on_cpu::wait_for_block(where);
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFF, std::source_location where = std::source_location::current()) {
  titer::cuda_on_cpu::wait_for_warp(
      mask, nullptr, [](const titer::cuda_on_cpu::WarpOperands&) {}, where);
}

inline bool __any_sync(unsigned mask, bool value, std::source_location where = std::source_location::current()) {
  const auto collect = [](const titer::cuda_on_cpu::WarpOperands& operands) {
    bool any = false;
    for (const void* const operand : operands) any |= operand != nullptr && *static_cast<const bool*>(operand);
    for (void* const operand : operands) {
      if (operand != nullptr) *static_cast<bool*>(operand) = any;
    }
  };
  titer::cuda_on_cpu::wait_for_warp(mask, &value, collect, where);
  return value;
}

namespace titer::cuda_on_cpu {

/// The value of another lane, that of this one where there is no such lane.
template <typename T>
T value_of_lane(unsigned mask, T value, unsigned lane, const std::source_location& where) {
  struct Operand {
    T value;
    unsigned lane;
    T result;
  };
  const auto exchange = [](const WarpOperands& operands) {
    for (void* const operand : operands) {
      if (operand == nullptr) continue;
      auto* const own = static_cast<Operand*>(operand);
      own->result = own->lane >= kWarp ? own->value : static_cast<const Operand*>(operands.at(own->lane))->value;
    }
  };
  if (lane < kWarp && (mask >> lane & 1) == 0) stop("the mask leaves out the lane that is read", where);
  Operand own{value, lane, value};
  wait_for_warp(mask, &own, exchange, where);
  return own.result;
}

}  // namespace titer::cuda_on_cpu

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance,
                   std::source_location where = std::source_location::current()) {
  return titer::cuda_on_cpu::value_of_lane(mask, value, threadIdx.x % titer::cuda_on_cpu::kWarp + distance, where);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lanes,
                  std::source_location where = std::source_location::current()) {
  return titer::cuda_on_cpu::value_of_lane(mask, value, threadIdx.x % titer::cuda_on_cpu::kWarp ^ lanes, where);
}
