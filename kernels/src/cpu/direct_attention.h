// shared_prefix_attention where every continuation has a few queries, as in decoding: see attention_rows.h.
#pragma once

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

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
  DirectAttention(const SharedPrefixInputs& inputs, const at::Tensor& out, const std::vector<Continuation>& all,
                  int64_t max_length)
      : in_(inputs),
        out_(out),
        all_(all),
        group_(inputs.q.size(2)),
        head_dim_(inputs.q.size(3)),
        scale_{static_cast<Sum>(inputs.layout.scale), static_cast<Sum>(inputs.layout.soft_cap.value_or(0))},
        queries_(empty_buffer<Sum>(kDirectQueries * head_dim_)),
        scores_(empty_buffer<Sum>(kDirectQueries * round_up(max_length, kTileColumns))),
        result_(empty_buffer<Sum>(kDirectQueries * head_dim_)) {}

  /// Items [begin, end) of the pairs of continuation and key head.
  void run(int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      attend(item(i), i + 1 < end ? rows_of(in_.prefix_k, in_.k, item(i + 1)) : SequenceRows<Bits>());
  }

 private:
  struct Item {
    const Continuation& continuation;
    int64_t head;
    int64_t length;  // of what the continuation sees
    int64_t window;
    int64_t begin;  // the first key that any of its queries sees
  };

  Item item(int64_t i) const {
    const int64_t heads = in_.q.size(1);
    const Continuation& c = all_[static_cast<size_t>(i / heads)];
    const int64_t length = c.visible + c.rows, window = std::min(in_.layout.window.value_or(length), length);
    return {c, i % heads, length, window, std::max<int64_t>(0, length - c.queries + 1 - window)};
  }

  /// @param next_keys  of the item that follows
  void attend(const Item& item, const SequenceRows<Bits>& next_keys) {
    const auto& [c, head, length, window, begin] = item;
    const int64_t count = c.queries * group_, position = length - c.queries;
    const int64_t columns = round_up(length - begin, kTileColumns);
    std::array<Span, kDirectQueries> spans;
    std::array<Sum, kDirectQueries> max, sum, rescale;
    Sum* const queries = queries_.template mutable_data_ptr<Sum>();
    for (int64_t r = 0; r < count; ++r) {
      const auto i = static_cast<size_t>(r);
      const T* const q = in_.q.const_data_ptr<T>() + query_offset(in_.q, c, head, group_, r);
      std::copy_n(q, head_dim_, queries + r * head_dim_);
      const int64_t end = position + r / group_ + 1;
      spans[i] = {std::max<int64_t>(0, end - window - begin), end - begin};
      max[i] = -std::numeric_limits<Sum>::infinity();
      sum[i] = 0;
    }

    Sum* const scores = scores_.template mutable_data_ptr<Sum>();
    Sum* const result = result_.template mutable_data_ptr<Sum>();
    const SequenceRows<Bits> keys = rows_of(in_.prefix_k, in_.k, item), values = rows_of(in_.prefix_v, in_.v, item);
    query_key_products(queries, count, keys, head_dim_, scores, columns, /*next=*/values);
    softmax_tile(scores, count, columns, spans.data(), scale_, {max.data(), sum.data(), rescale.data()}, scores);
    weighted_values(scores, columns, count, values, head_dim_, result, next_keys);
    auto* const out = reinterpret_cast<Bits*>(out_.mutable_data_ptr<T>());
    for (int64_t r = 0; r < count; ++r)
      divide_row(result + r * head_dim_, head_dim_, sum[static_cast<size_t>(r)],
                 out + query_offset(out_, c, head, group_, r));
  }

  /// Those that an item sees.
  static SequenceRows<Bits> rows_of(const at::Tensor& prefix, const at::Tensor& own, const Item& item) {
    const Continuation& c = item.continuation;
    const int64_t hidden = std::min(item.begin, c.visible), own_hidden = item.begin - hidden;
    const T* const first = prefix.const_data_ptr<T>() + item.head * prefix.stride(0) + hidden * prefix.stride(1);
    const T* const own_first =
        own.const_data_ptr<T>() + (c.first_row + own_hidden) * own.stride(0) + item.head * own.stride(1);
    return {{reinterpret_cast<const Bits*>(first), prefix.stride(1), c.visible - hidden},
            {reinterpret_cast<const Bits*>(own_first), own.stride(0), c.rows - own_hidden}};
  }

  const SharedPrefixInputs& in_;
  const at::Tensor& out_;
  const std::vector<Continuation>& all_;
  int64_t group_, head_dim_;
  ScoreScale<Sum> scale_;
  at::Tensor queries_, scores_, result_;
};

}  // namespace titer::cpu
