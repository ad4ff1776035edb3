// How the CPU operations over a vocabulary cut their work: groups of rows, types of a call. In their terms `hidden` is
// the small matrix and `weight` the one with a row per token.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "cpu/block_gemm.h"
#include "cpu/block_operands.h"
#include "cpu/token_tile.h"

namespace titer::cpu {

inline constexpr int64_t kMaxGroupBlocks = 8;  ///< blocks of kTileRows rows that share one walk over a range of tokens
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGroupBytes = 1 * kMiB;  ///< packed hidden of a group: stays in L2 beside the weight's rows

/// Calls function with the BlockTypes for these tensors.
template <typename Function>
void dispatch_block_types(const at::Tensor& hidden, const at::Tensor& weight, const Function& function) {
  const bool is_even = hidden.size(1) % 2 == 0 && weight.stride(0) % 2 == 0;
  dispatch_block_types(hidden.scalar_type(), is_even, function);
}

template <typename Types>
int64_t max_blocks_per_group(int64_t d) {
  const int64_t block_bytes = kTileRows * d * static_cast<int64_t>(sizeof(typename Types::Operand));
  return std::clamp<int64_t>(kGroupBytes / block_bytes, 1, kMaxGroupBlocks);
}

}  // namespace titer::cpu
