// Stands in for kernels/src/cuda/mma.cuh: the instructions, with the fragments that the PTX ISA documents for them.
// Sums are rounded once, where tensor cores cut off bits of every addend.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <source_location>

#include "device_functions.h"
#include "thread_block.h"

namespace titer::cuda {

/// PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type".
template <typename T>
void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T,
                 std::source_location where = std::source_location::current()) {
  struct Operand {
    float* c;
    const uint32_t *a, *b;
  };
  const auto multiply = [](const cuda_on_cpu::WarpOperands& lanes) {
    const auto element = [](uint32_t pair, unsigned i) {
      return static_cast<float>(std::bit_cast<T>(static_cast<uint16_t>(pair >> 16 * i)));
    };
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < cuda_on_cpu::kWarp; ++lane) {
      const unsigned group = lane / 4, in_group = lane % 4;
      const auto* const own = static_cast<const Operand*>(lanes[lane]);
      for (unsigned i = 0; i < 8; ++i) {
        const unsigned row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
        a[row][in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)] = element(own->a[i / 2], i % 2);
      }
      for (unsigned i = 0; i < 4; ++i)
        b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = element(own->b[i / 2], i % 2);
    }
    for (unsigned lane = 0; lane < cuda_on_cpu::kWarp; ++lane) {
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = i < 2 ? lane / 4 : lane / 4 + 8, column = lane % 4 * 2 + (i & 1);
        float& own = static_cast<Operand*>(lanes[lane])->c[i];
        double sum = own;
        for (unsigned k = 0; k < 16; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
        own = static_cast<float>(sum);
      }
    }
  };
  Operand own{c, a, b};
  cuda_on_cpu::wait_for_warp(0xFFFFFFFF, &own, multiply, where);
}

namespace emulated {

inline void require_alignment(const void* pointer, const std::source_location& where) {
  if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) cuda_on_cpu::stop("an address must be divisible by 16", where);
}

/// PTX ISA, "ldmatrix": lane 8 i + j brings row j of matrix i.
template <bool kTransposed>
void load_matrices(uint32_t (&to)[4], const void* row, const std::source_location& where) {
  struct Operand {
    uint32_t* to;
    const void* row;
  };
  require_alignment(row, where);
  const auto load = [](const cuda_on_cpu::WarpOperands& lanes) {
    const auto element = [&](unsigned matrix, unsigned row, unsigned column) {
      const void* const from = static_cast<const Operand*>(lanes[8 * matrix + row])->row;
      return uint32_t{static_cast<const uint16_t*>(from)[column]};
    };
    for (unsigned lane = 0; lane < cuda_on_cpu::kWarp; ++lane) {
      const unsigned major = lane / 4, minor = lane % 4 * 2;
      for (unsigned i = 0; i < 4; ++i) {
        static_cast<Operand*>(lanes[lane])->to[i] = kTransposed
                                                        ? element(i, minor, major) | element(i, minor + 1, major) << 16
                                                        : element(i, major, minor) | element(i, major, minor + 1) << 16;
      }
    }
  };
  Operand own{to, row};
  cuda_on_cpu::wait_for_warp(0xFFFFFFFF, &own, load, where);
}

}  // namespace emulated

inline void load_matrices(uint32_t (&to)[4], const void* row,
                          std::source_location where = std::source_location::current()) {
  emulated::load_matrices<false>(to, row, where);
}

inline void load_transposed_matrices(uint32_t (&to)[4], const void* row,
                                     std::source_location where = std::source_location::current()) {
  emulated::load_matrices<true>(to, row, where);
}

inline void copy_async(void* shared, const void* global, bool exists,
                       std::source_location where = std::source_location::current()) {
  static constexpr uint4 kZeros{};
  emulated::require_alignment(shared, where);
  emulated::require_alignment(global, where);
  cuda_on_cpu::copy_later(shared, exists ? global : &kZeros, sizeof(uint4));
}

inline void wait_for_copies() { cuda_on_cpu::finish_copies(); }

}  // namespace titer::cuda
