// CPU backend of shared_prefix_attention. Where continuations have more than a few queries, a thread takes queries of
// one key head and continuation and walks the keys in tiles: scores, their running softmax (arXiv 1805.02867, as in
// FlashAttention), and the product with the values, all of which stay in its cache. Keys are packed where they stand in
// the sequence: the prefix once per thread and head, then each continuation's own over what it does not see of it.
#include "shared_prefix_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "cpu/attention_tile.h"
#include "cpu/block_gemm.h"
#include "cpu/block_operands.h"
#include "cpu/continuations.h"
#include "cpu/direct_attention.h"

namespace titer::cpu {
namespace {

constexpr int64_t kTileQueries = 64;
constexpr int64_t kItemQueries = 8 * kTileQueries;  // what a thread takes of one continuation at a time
constexpr int64_t kTileKeys = 256;
constexpr int64_t kQueryAlign = 16;  // so that block products come in few shapes, each of which oneDNN compiles

/// Rows [first, first + count) of the (query, head of the group) pairs of a continuation.
struct Item {
  int64_t head;
  const Continuation* continuation;
  int64_t first, count;
};

/// Keys and values of a sequence as right operands, kTileKeys positions at a time.
template <typename T>
class PackedKeys {
 public:
  using Bits = typename AttentionTypes<T>::Bits;

  PackedKeys(int64_t max_length, int64_t head_dim)
      : head_dim_(head_dim),
        // Columns are written in whole vectors, also from a place between two of them.
        capacity_(round_up(std::min(max_length, kTileKeys), kTileColumns) + kTileColumns),
        keys_(empty_buffer<T>(ceil_div(max_length, kTileKeys) * capacity_ * head_dim)),
        values_(empty_buffer<T>(ceil_div(max_length, kTileKeys) * capacity_ * head_dim)) {}

  /// Writes `count` positions from `first` on; what stood behind them is lost. Their last vector is filled with zeros
  /// of values and with any keys, whose scores nobody sees.
  void pack(int64_t first, const T* keys, int64_t key_stride, const T* values, int64_t value_stride, int64_t count) {
    for (int64_t done = 0; done < count;) {
      const int64_t column = (first + done) % kTileKeys, size = std::min(kTileKeys - column, count - done);
      pack_columns(reinterpret_cast<const Bits*>(keys + done * key_stride), key_stride, size, head_dim_,
                   reinterpret_cast<Bits*>(tile(keys_, first + done) + column * kPaired), capacity_);
      pack_values(values + done * value_stride, value_stride, column, size, tile(values_, first + done));
      done += size;
    }
  }

  const T* keys(int64_t position) const { return tile(keys_, position); }  ///< [head_dim, capacity] of its tile
  const T* values(int64_t position) const { return tile(values_, position); }
  int64_t capacity() const { return capacity_; }

 private:
  static constexpr int64_t kPaired = is_paired<T> ? 2 : 1;

  void pack_values(const T* values, int64_t stride, int64_t column, int64_t size, T* tile) const {
    int64_t row = 0;
    if (column % kPaired != 0) {  // the partner of the position before
      for (int64_t i = 0; i < head_dim_; ++i) tile[((column / 2) * head_dim_ + i) * 2 + 1] = values[i];
      row = 1;
    }
    pack_rows(values + row * stride, stride, size - row, head_dim_, tile + (column + row) * head_dim_);
    const int64_t end = column + size;
    std::fill(tile + round_up(end, kPaired) * head_dim_, tile + round_up(end, kTileColumns) * head_dim_, T(0));
  }

  T* tile(const at::Tensor& storage, int64_t position) const {
    return static_cast<T*>(storage.mutable_data_ptr()) + position / kTileKeys * capacity_ * head_dim_;
  }

  int64_t head_dim_, capacity_;
  at::Tensor keys_, values_;
};

/// One thread's buffers.
template <typename T>
class Worker {
 public:
  using Sum = typename AttentionTypes<T>::Sum;
  using Bits = typename AttentionTypes<T>::Bits;

  Worker(const SharedPrefixInputs& inputs, const at::Tensor& out, int64_t max_length)
      : in_(inputs),
        out_(out),
        group_(inputs.q.size(2)),
        head_dim_(inputs.q.size(3)),
        scale_{static_cast<Sum>(inputs.layout.scale), static_cast<Sum>(inputs.layout.soft_cap.value_or(0))},
        keys_(max_length, head_dim_),
        queries_(empty_buffer<T>(kTileQueries * head_dim_)),
        scores_(empty_buffer<Sum>(kTileQueries * kTileKeys)),
        probabilities_(empty_buffer<T>(is_paired<T> ? kTileQueries * kTileKeys : 0)),
        result_(empty_buffer<Sum>(kTileQueries * head_dim_)) {}

  void run(const Item& item) {
    const Continuation& c = *item.continuation;
    if (item.head != head_ || &c != continuation_) pack(item.head, c);
    const int64_t end = item.first + item.count;
    for (int64_t first = item.first; first < end; first += kTileQueries)
      attend(c, first, std::min(kTileQueries, end - first));
  }

 private:
  void pack(int64_t head, const Continuation& c) {
    const auto at = [](const at::Tensor& x, int64_t i, int64_t j) {
      return x.const_data_ptr<T>() + i * x.stride(0) + j * x.stride(1);
    };
    if (head != head_ && c.visible > 0)
      keys_.pack(0, at(in_.prefix_k, head, 0), in_.prefix_k.stride(1), at(in_.prefix_v, head, 0),
                 in_.prefix_v.stride(1), c.visible);
    keys_.pack(c.visible, at(in_.k, c.first_row, head), in_.k.stride(0), at(in_.v, c.first_row, head), in_.v.stride(0),
               c.rows);
    head_ = head;
    continuation_ = &c;
  }

  /// At most kTileQueries rows of an item.
  void attend(const Continuation& c, int64_t first, int64_t count) {
    const int64_t padded = round_up(count, kQueryAlign);
    T* const queries = queries_.template mutable_data_ptr<T>();
    const T* const q = in_.q.const_data_ptr<T>();
    for (int64_t r = 0; r < count; ++r)
      std::memcpy(queries + r * head_dim_, q + query_offset(in_.q, c, head_, group_, first + r),
                  static_cast<size_t>(head_dim_) * sizeof(T));
    std::fill(queries + count * head_dim_, queries + padded * head_dim_, T(0));
    std::fill_n(max_.begin(), padded, -std::numeric_limits<Sum>::infinity());
    std::fill_n(sum_.begin(), padded, Sum(0));
    is_first_tile_ = true;

    const int64_t length = c.visible + c.rows;
    for (int64_t key = 0; key < length; key += kTileKeys)
      add_tile(key, std::min(kTileKeys, length - key), length - c.queries, first, count);

    const Sum* const result = result_.template const_data_ptr<Sum>();
    auto* const out = reinterpret_cast<Bits*>(out_.mutable_data_ptr<T>());
    for (int64_t r = 0; r < count; ++r)
      divide_row(result + r * head_dim_, head_dim_, sum_[static_cast<size_t>(r)],
                 out + query_offset(out_, c, head_, group_, first + r));
  }

  /// Keys [key, key + size), for rows of an item whose continuation's first query stands at `query_position`.
  void add_tile(int64_t key, int64_t size, int64_t query_position, int64_t first, int64_t count) {
    const int64_t window = in_.layout.window.value_or(std::numeric_limits<int64_t>::max() / 2);
    int64_t columns = 0;
    for (int64_t r = 0; r < count; ++r) {
      const int64_t position = query_position + (first + r) / group_;
      const int64_t end = std::clamp<int64_t>(position + 1 - key, 0, size);
      spans_[static_cast<size_t>(r)] = {std::clamp<int64_t>(position + 1 - window - key, 0, end), end};
      if (spans_[static_cast<size_t>(r)].begin < end) columns = std::max(columns, round_up(end, kTileColumns));
    }
    if (columns == 0) return;
    const int64_t padded = round_up(count, kQueryAlign);
    std::fill(spans_.begin() + count, spans_.begin() + padded, Span{0, 0});

    Sum* const scores = scores_.template mutable_data_ptr<Sum>();
    Sum* const result = result_.template mutable_data_ptr<Sum>();
    block_gemm(padded, columns, head_dim_, queries_.template const_data_ptr<T>(), head_dim_, keys_.keys(key),
               keys_.capacity(), scores, columns, /*accumulate=*/false);
    const RunningSoftmax<Sum> state{max_.data(), sum_.data(), rescale_.data()};
    T* probabilities = nullptr;
    if constexpr (is_paired<T>) {
      probabilities = probabilities_.template mutable_data_ptr<T>();
    } else {
      probabilities = scores;
    }
    softmax_tile(scores, padded, columns, spans_.data(), scale_, state, reinterpret_cast<Bits*>(probabilities));
    if (!is_first_tile_) scale_rows(result, count, head_dim_, rescale_.data());
    block_gemm(padded, head_dim_, columns, probabilities, columns, keys_.values(key), head_dim_, result, head_dim_,
               /*accumulate=*/!is_first_tile_);
    is_first_tile_ = false;
  }

  const SharedPrefixInputs& in_;
  const at::Tensor& out_;
  int64_t group_, head_dim_;
  ScoreScale<Sum> scale_;
  int64_t head_ = -1;  // whose prefix is packed, and whose keys of this continuation
  const Continuation* continuation_ = nullptr;
  PackedKeys<T> keys_;
  at::Tensor queries_, scores_, probabilities_, result_;
  std::array<Sum, kTileQueries> max_{}, sum_{}, rescale_{};
  std::array<Span, kTileQueries> spans_{};
  bool is_first_tile_ = true;
};

/// Whether every continuation has so few queries that packing its keys would not pay.
bool is_direct(const std::vector<Continuation>& all, int64_t group) {
  return std::all_of(all.begin(), all.end(), [&](const auto& c) { return c.queries * group <= kDirectQueries; });
}

template <typename T>
void attend(const SharedPrefixInputs& inputs, std::vector<Continuation> all, const at::Tensor& out) {
  const int64_t heads = inputs.q.size(1), group = inputs.q.size(2);
  int64_t max_length = 0, pairs = 0;
  for (const Continuation& c : all) {
    max_length = std::max(max_length, c.visible + c.rows);
    pairs += c.queries * group * (c.visible + c.rows);
  }
  const int64_t multiply_adds = 2 * heads * pairs * inputs.q.size(3);
  if (is_direct(all, group)) {
    const int64_t count = static_cast<int64_t>(all.size()) * heads;
    at::parallel_for(0, count, worthwhile_items(count, multiply_adds), [&](int64_t begin, int64_t end) {
      DirectAttention<T>(inputs, out, all, max_length).run(begin, end);
    });
    return;
  }
  // What a continuation writes its own keys over is seen by none behind it.
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.visible > b.visible; });
  std::vector<Item> items;
  for (int64_t head = 0; head < heads; ++head)
    for (const Continuation& c : all)
      for (int64_t first = 0; first < c.queries * group; first += kItemQueries)
        items.push_back({head, &c, first, std::min(kItemQueries, c.queries * group - first)});
  const auto count = static_cast<int64_t>(items.size());
  at::parallel_for(0, count, worthwhile_items(count, multiply_adds), [&](int64_t begin, int64_t end) {
    const BlockGemmScope scope;
    Worker<T> worker(inputs, out, max_length);
    for (int64_t i = begin; i < end; ++i) worker.run(items[static_cast<size_t>(i)]);
  });
}

/// For 16-bit values that this processor has no block products of.
void attend_in_float(const SharedPrefixInputs& in, std::vector<Continuation> all, const at::Tensor& out) {
  const auto wide = [](const at::Tensor& x) { return x.to(at::kFloat).contiguous(); };
  const at::Tensor q = wide(in.q), k = wide(in.k), v = wide(in.v), prefix_k = wide(in.prefix_k),
                   prefix_v = wide(in.prefix_v), sums = at::empty(out.sizes(), at::kFloat);
  attend<float>({q, k, v, prefix_k, prefix_v, in.layout}, std::move(all), sums);
  out.copy_(sums);
}

at::Tensor packable(const at::Tensor& x, int64_t row_dim) {
  return is_packable(x, row_dim) ? x : x.clone(at::MemoryFormat::Contiguous);
}

at::Tensor& shared_prefix_attention_out_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                            const at::Tensor& rows, const at::Tensor& visible,
                                            std::optional<int64_t> queries, std::optional<int64_t> window, double scale,
                                            std::optional<double> soft_cap, const std::optional<at::Tensor>& first_row,
                                            at::Tensor& out) {
  const ops::SharedPrefixLayout layout{rows, visible, queries, window, scale, soft_cap, first_row};
  check_shared_prefix_attention({q, k, v, prefix_k, prefix_v, layout}, out);
  if (out.numel() == 0) return out;
  const at::Tensor keys = packable(k, 0), old_keys = packable(prefix_k, 1);
  const SharedPrefixInputs inputs{q, keys, v, old_keys, prefix_v, layout};
  std::vector<Continuation> all = continuations(layout);
  const bool has_blocks = q.size(3) % 2 == 0 && has_bfloat16_block_gemm();
  if (q.scalar_type() == at::kFloat) {
    attend<float>(inputs, std::move(all), out);
  } else if (q.scalar_type() == at::kDouble) {
    attend<double>(inputs, std::move(all), out);
  } else if (q.scalar_type() == at::kBFloat16 && (has_blocks || is_direct(all, q.size(2)))) {
    attend<c10::BFloat16>(inputs, std::move(all), out);
  } else {
    attend_in_float(inputs, std::move(all), out);
  }
  return out;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) {
  m.impl("shared_prefix_attention.out", titer::cpu::shared_prefix_attention_out_cpu);
}
