// CPU backend of the gradients of shared_prefix_attention where there is no prefix: sequences in training. A thread
// takes a sequence and key head and walks its queries in tiles, whose weights it computes again. With g the incoming
// gradient, p the weights and d the sum of p (g vᵀ) over a row: dv = pᵀ g, ds = p (g vᵀ - d) scale, dq = ds k,
// dk = dsᵀ q. All in float32; what else there is, a prefix, a cap, slots, is composed of torch's products.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "cpu/attention_tile.h"
#include "cpu/block_gemm.h"
#include "cpu/block_operands.h"
#include "cpu/continuations.h"
#include "shared_prefix_attention.h"

namespace titer::cpu {
namespace {

constexpr int64_t kTileQueries = 64;
constexpr int64_t kQueryAlign = 16;  // so that block products come in few shapes, each of which oneDNN compiles

void transpose(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out, int64_t out_stride) {
  constexpr int64_t kBlock = 16;
  for (int64_t r = 0; r < rows; r += kBlock)
    for (int64_t c = 0; c < columns; c += kBlock)
      for (int64_t j = c; j < std::min(c + kBlock, columns); ++j)
        for (int64_t i = r; i < std::min(r + kBlock, rows); ++i) out[j * out_stride + i] = in[i * in_stride + j];
}

/// Contiguous float32: q, grad and dq [M, Hkv, G, hd], k, v, dk and dv [N, Hkv, hd].
struct Gradients {
  at::Tensor grad, q, k, v, dq, dk, dv;
  double scale;
  int64_t window;
};

/// One thread's buffers.
class Worker {
 public:
  Worker(const Gradients& g, int64_t max_rows)
      : g_(g),
        group_(g.q.size(2)),
        head_dim_(g.q.size(3)),
        padded_rows_(round_up(max_rows, kTileColumns)),
        keys_(head_dim_ * padded_rows_),
        values_(head_dim_ * padded_rows_),
        plain_keys_(padded_rows_ * head_dim_),
        dk_(padded_rows_ * head_dim_),
        dv_(padded_rows_ * head_dim_),
        queries_(kTileQueries * head_dim_),
        grads_(kTileQueries * head_dim_),
        dq_(kTileQueries * head_dim_),
        weights_(kTileQueries * padded_rows_),
        scores_(kTileQueries * padded_rows_),
        transposed_(kTileQueries * padded_rows_) {}

  void run(const Continuation& c, int64_t head) {
    load(c, head);
    std::fill(dk_.begin(), dk_.end(), 0.0F);
    std::fill(dv_.begin(), dv_.end(), 0.0F);
    for (int64_t first = 0; first < c.queries * group_; first += kTileQueries)
      add_tile(c, head, first, std::min(kTileQueries, c.queries * group_ - first));
    for (int64_t i = 0; i < c.rows; ++i) {
      std::copy_n(&dk_[static_cast<size_t>(i * head_dim_)], head_dim_, row(g_.dk, c, head, i));
      std::copy_n(&dv_[static_cast<size_t>(i * head_dim_)], head_dim_, row(g_.dv, c, head, i));
    }
  }

 private:
  static float* row(const at::Tensor& x, const Continuation& c, int64_t head, int64_t i) {
    return x.mutable_data_ptr<float>() + (c.first_row + i) * x.stride(0) + head * x.stride(1);
  }

  /// Keys and values as right operands, transposed; keys also as they are. Zeros behind the last one.
  void load(const Continuation& c, int64_t head) {
    std::fill(keys_.begin(), keys_.end(), 0.0F);
    std::fill(values_.begin(), values_.end(), 0.0F);
    transpose(row(g_.k, c, head, 0), g_.k.stride(0), c.rows, head_dim_, keys_.data(), padded_rows_);
    transpose(row(g_.v, c, head, 0), g_.v.stride(0), c.rows, head_dim_, values_.data(), padded_rows_);
    std::fill(plain_keys_.begin() + c.rows * head_dim_, plain_keys_.end(), 0.0F);
    for (int64_t i = 0; i < c.rows; ++i)
      std::copy_n(row(g_.k, c, head, i), head_dim_, &plain_keys_[static_cast<size_t>(i * head_dim_)]);
  }

  void add_tile(const Continuation& c, int64_t head, int64_t first, int64_t count) {
    const int64_t padded = round_up(count, kQueryAlign);
    const auto gather = [&](const at::Tensor& x, std::vector<float>& out) {
      for (int64_t r = 0; r < count; ++r)
        std::copy_n(x.const_data_ptr<float>() + query_offset(x, c, head, group_, first + r), head_dim_,
                    &out[static_cast<size_t>(r * head_dim_)]);
      std::fill(out.begin() + count * head_dim_, out.begin() + padded * head_dim_, 0.0F);
    };
    gather(g_.q, queries_);
    gather(g_.grad, grads_);

    Span spans[kTileQueries] = {};
    for (int64_t r = 0; r < count; ++r) {
      const int64_t end = c.rows - c.queries + (first + r) / group_ + 1;
      spans[r] = {std::max<int64_t>(0, end - g_.window), end};
    }
    const int64_t columns = round_up(spans[count - 1].end, kTileColumns);
    block_gemm(padded, columns, head_dim_, queries_.data(), head_dim_, keys_.data(), padded_rows_, weights_.data(),
               columns, /*accumulate=*/false);
    float max[kTileQueries], sum[kTileQueries] = {}, rescale[kTileQueries];
    std::fill_n(max, padded, -std::numeric_limits<float>::infinity());
    softmax_tile(weights_.data(), padded, columns, spans, {static_cast<float>(g_.scale), 0.0F}, {max, sum, rescale},
                 weights_.data());
    block_gemm(padded, columns, head_dim_, grads_.data(), head_dim_, values_.data(), padded_rows_, scores_.data(),
               columns, /*accumulate=*/false);
    for (int64_t r = 0; r < count; ++r)
      finish_row(&weights_[static_cast<size_t>(r * columns)], &scores_[static_cast<size_t>(r * columns)], columns,
                 1 / sum[r]);
    std::fill(scores_.begin() + count * columns, scores_.begin() + padded * columns, 0.0F);

    block_gemm(padded, head_dim_, columns, scores_.data(), columns, plain_keys_.data(), head_dim_, dq_.data(),
               head_dim_, /*accumulate=*/false);
    for (int64_t r = 0; r < count; ++r)
      std::copy_n(&dq_[static_cast<size_t>(r * head_dim_)], head_dim_,
                  g_.dq.mutable_data_ptr<float>() + query_offset(g_.dq, c, head, group_, first + r));
    add_transposed(scores_, columns, padded, queries_, dk_);
    add_transposed(weights_, columns, padded, grads_, dv_);
  }

  /// Weights become sums of one, and the products with the values what scores get.
  void finish_row(float* __restrict weights, float* __restrict products, int64_t columns, float inverse) const {
    float d = 0;
    for (int64_t j = 0; j < columns; ++j) weights[j] *= inverse;
#pragma omp simd reduction(+ : d)
    for (int64_t j = 0; j < columns; ++j) d += weights[j] * products[j];
    const auto scale = static_cast<float>(g_.scale);
    for (int64_t j = 0; j < columns; ++j) products[j] = weights[j] * (products[j] - d) * scale;
  }

  /// out [columns, hd] += xᵀ right, with x [rows, columns] and right [rows, hd].
  void add_transposed(const std::vector<float>& x, int64_t columns, int64_t rows, const std::vector<float>& right,
                      std::vector<float>& out) {
    transpose(x.data(), columns, rows, columns, transposed_.data(), rows);
    block_gemm(columns, head_dim_, rows, transposed_.data(), rows, right.data(), head_dim_, out.data(), head_dim_,
               /*accumulate=*/true);
  }

  const Gradients& g_;
  int64_t group_, head_dim_, padded_rows_;
  std::vector<float> keys_, values_;  // [hd, padded_rows]
  std::vector<float> plain_keys_, dk_, dv_;
  std::vector<float> queries_, grads_, dq_;           // of a tile
  std::vector<float> weights_, scores_, transposed_;  // of a tile and all keys
};

SharedPrefixGrads of_sequences(const at::Tensor& grad, const SharedPrefixInputs& in, std::array<bool, 5> output_mask) {
  const auto wide = [](const at::Tensor& x) { return x.to(at::kFloat).contiguous(); };
  const Gradients g{wide(grad),
                    wide(in.q),
                    wide(in.k),
                    wide(in.v),
                    at::empty(in.q.sizes(), at::kFloat),
                    at::empty(in.k.sizes(), at::kFloat),
                    at::empty(in.v.sizes(), at::kFloat),
                    in.layout.scale,
                    in.layout.window.value_or(std::numeric_limits<int64_t>::max() / 2)};
  const std::vector<Continuation> all = continuations(in.layout);
  const int64_t heads = in.q.size(1);
  int64_t max_rows = 0, pairs = 0;
  for (const Continuation& c : all) {
    max_rows = std::max(max_rows, c.rows);
    pairs += c.queries * in.q.size(2) * c.rows;
  }
  const int64_t items = static_cast<int64_t>(all.size()) * heads;
  at::parallel_for(0, items, worthwhile_items(items, 5 * heads * pairs * in.q.size(3)),
                   [&](int64_t begin, int64_t end) {
                     const BlockGemmScope scope;
                     Worker worker(g, max_rows);
                     for (int64_t i = begin; i < end; ++i) worker.run(all[static_cast<size_t>(i / heads)], i % heads);
                   });
  const auto asked = [&](size_t i, const at::Tensor& x) {
    return output_mask.at(i) ? x.to(in.q.scalar_type()) : at::Tensor();
  };
  return {asked(0, g.dq), asked(1, g.dk), asked(2, g.dv), asked(3, at::zeros(in.prefix_k.sizes())),
          asked(4, at::zeros(in.prefix_v.sizes()))};
}

SharedPrefixGrads backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& prefix_k, const at::Tensor& prefix_v, const at::Tensor& rows,
                           const at::Tensor& visible, std::optional<int64_t> queries, std::optional<int64_t> window,
                           double scale, std::optional<double> soft_cap, const std::optional<at::Tensor>& first_row,
                           std::array<bool, 5> output_mask) {
  const SharedPrefixInputs inputs{q,        k,        v,
                                  prefix_k, prefix_v, {rows, visible, queries, window, scale, soft_cap, first_row}};
  check_shared_prefix_attention_backward(grad, inputs);
  const bool is_composed = prefix_k.size(1) > 0 || soft_cap || first_row || q.scalar_type() == at::kDouble;
  if (is_composed || q.numel() == 0) return shared_prefix_attention_backward_composed(grad, inputs, output_mask);
  return of_sequences(grad, inputs, output_mask);
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) { m.impl("shared_prefix_attention_backward", titer::cpu::backward); }
