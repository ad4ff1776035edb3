// shared_prefix_attention where every continuation has a few queries, as in decoding: see attention_rows.h.
#pragma once

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "cpu/attention_rows.h"
#include "cpu/attention_tile.h"
#include "cpu/block_operands.h"
#include "cpu/continuations.h"
#include "shared_prefix_attention.h"

namespace titer::cpu {

inline constexpr int64_t kDirectQueries = 8;  ///< of a continuation and key head; more are worth packed keys

/// One thread's buffers.
template <typename T>
class DirectAttention {
 public:
  using Sum = typename AttentionTypes<T>::Sum;
  using Bits = typename AttentionTypes<T>::Bits;

  /// @param max_length  of what a continuation sees
  DirectAttention(const SharedPrefixInputs& inputs, const at::Tensor& out, int64_t max_length)
      : in_(inputs),
        out_(out),
        group_(inputs.q.size(2)),
        head_dim_(inputs.q.size(3)),
        scale_{static_cast<Sum>(inputs.layout.scale), static_cast<Sum>(inputs.layout.soft_cap.value_or(0))},
        queries_(empty_buffer<T>(kDirectQueries * head_dim_)),
        scores_(empty_buffer<Sum>(kDirectQueries * round_up(max_length, kTileColumns))),
        result_(empty_buffer<Sum>(kDirectQueries * head_dim_)) {}

  void run(int64_t head, const Continuation& c) {
    const int64_t count = c.queries * group_, length = c.visible + c.rows, position = length - c.queries;
    const int64_t window = std::min(in_.layout.window.value_or(length), length);
    const int64_t begin = std::max<int64_t>(0, position + 1 - window);  // the first key that anyone sees
    const int64_t columns = round_up(length - begin, kTileColumns);
    std::array<Span, kDirectQueries> spans;
    std::array<Sum, kDirectQueries> max, sum, rescale;
    T* const queries = queries_.template mutable_data_ptr<T>();
    for (int64_t r = 0; r < count; ++r) {
      const auto i = static_cast<size_t>(r);
      std::memcpy(queries + r * head_dim_, in_.q.const_data_ptr<T>() + query_offset(in_.q, c, head, group_, r),
                  static_cast<size_t>(head_dim_) * sizeof(T));
      const int64_t end = position + r / group_ + 1;
      spans[i] = {std::max<int64_t>(0, end - window - begin), end - begin};
      max[i] = -std::numeric_limits<Sum>::infinity();
      sum[i] = 0;
    }

    Sum* const scores = scores_.template mutable_data_ptr<Sum>();
    Sum* const result = result_.template mutable_data_ptr<Sum>();
    const StridedRows<Bits> few{reinterpret_cast<const Bits*>(queries), head_dim_, count};
    const int64_t seen = std::max<int64_t>(0, c.visible - begin);  // of the prefix
    query_key_products(few, of_prefix(in_.prefix_k, head, begin, seen), head_dim_, scores, columns);
    query_key_products(few, of_rows(in_.k, head, c, begin), head_dim_, scores + seen, columns);
    softmax_tile(scores, count, columns, spans.data(), scale_, {max.data(), sum.data(), rescale.data()}, scores);
    std::fill_n(result, count * head_dim_, Sum(0));
    add_weighted_values(scores, columns, count, of_prefix(in_.prefix_v, head, begin, seen), head_dim_, result);
    add_weighted_values(scores + seen, columns, count, of_rows(in_.v, head, c, begin), head_dim_, result);
    auto* const out = reinterpret_cast<Bits*>(out_.mutable_data_ptr<T>());
    for (int64_t r = 0; r < count; ++r)
      divide_row(result + r * head_dim_, head_dim_, sum[static_cast<size_t>(r)],
                 out + query_offset(out_, c, head, group_, r));
  }

 private:
  static StridedRows<Bits> of_prefix(const at::Tensor& x, int64_t head, int64_t begin, int64_t count) {
    const T* const data = x.const_data_ptr<T>() + head * x.stride(0) + (count > 0 ? begin * x.stride(1) : 0);
    return {reinterpret_cast<const Bits*>(data), x.stride(1), count};
  }

  /// Own rows that stand at position `begin` or behind it.
  static StridedRows<Bits> of_rows(const at::Tensor& x, int64_t head, const Continuation& c, int64_t begin) {
    const int64_t skipped = std::max<int64_t>(0, begin - c.visible);
    const T* const data = x.const_data_ptr<T>() + (c.first_row + skipped) * x.stride(0) + head * x.stride(1);
    return {reinterpret_cast<const Bits*>(data), x.stride(0), c.rows - skipped};
  }

  const SharedPrefixInputs& in_;
  const at::Tensor& out_;
  int64_t group_, head_dim_;
  ScoreScale<Sum> scale_;
  at::Tensor queries_, scores_, result_;
};

}  // namespace titer::cpu
