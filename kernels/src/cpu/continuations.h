// The work of shared_prefix_attention as its CPU kernels see it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <titer/kernels/shared_prefix_attention.h>

#include <cstdint>
#include <vector>

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

struct Continuation {
  int64_t rows, queries, visible;
  int64_t first_row, first_query;  // in k and v, in q and out
};

inline std::vector<Continuation> continuations(const ops::SharedPrefixLayout& layout) {
  const int64_t* const rows = layout.rows.const_data_ptr<int64_t>();
  const int64_t* const visible = layout.visible.const_data_ptr<int64_t>();
  std::vector<Continuation> out;
  int64_t row = 0, query = 0;
  for (int64_t c = 0; c < layout.rows.size(0); ++c) {
    if (layout.first_row) row = layout.first_row->const_data_ptr<int64_t>()[c];
    out.push_back({rows[c], layout.queries.value_or(rows[c]), visible[c], row, query});
    row += out.back().rows;
    query += out.back().queries;
  }
  return out;
}

/// Where row r of the (query, head of the group) pairs of a continuation and key head lies in q or out.
inline int64_t query_offset(const at::Tensor& x, const Continuation& c, int64_t head, int64_t group, int64_t r) {
  return (c.first_query + r / group) * x.stride(0) + head * x.stride(1) + r % group * x.stride(2);
}

}  // namespace titer::cpu
