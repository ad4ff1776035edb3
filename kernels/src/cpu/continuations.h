// The work of shared_prefix_attention as its CPU kernels see it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

#include <cstdint>

#include "continuation.h"

namespace titer::cpu {

/// What attention of T is computed in, and what its bits are called in attention_tile.h and attention_rows.h.
template <typename T>
struct AttentionTypes {
  using Sum = T;
  using Bits = T;
};
template <>
struct AttentionTypes<c10::BFloat16> {
  using Sum = float;
  using Bits = uint16_t;
};

/// Where row r of the (query, head of the group) pairs of a continuation and key head lies in q or out.
inline int64_t query_offset(const at::Tensor& x, const Continuation& c, int64_t head, int64_t group, int64_t r) {
  return (c.first_query + r / group) * x.stride(0) + head * x.stride(1) + r % group * x.stride(2);
}

}  // namespace titer::cpu
