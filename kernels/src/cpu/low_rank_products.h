// The three products that batched_lora is made of, on blocks of at most kLoraRows rows that stay in one core's cache:
//   Projection    p = m · factorᵀ, [rows, r]
//   RankUpdate    out (+)= p · factor, [rows, d]
//   OuterProduct  sum over rows of pᵀ · m, [r, d]
// with m [rows, d] rows of a tensor, factor [r, d] of one run, and p, which is wide, [rows, r] contiguous. One of each
// per thread.
//
// Where blocks are multiplied in bfloat16, a wide number becomes the sum of three (arXiv 1904.06376), of 8 significant
// bits each. Their products with bfloat16 numbers are exact, and sums as good as float32's.
#pragma once

#include <array>
#include <bit>

#include "cpu/batched_lora_vectors.h"
#include "cpu/block_gemm.h"
#include "cpu/block_operands.h"

namespace titer::cpu {

inline constexpr int64_t kLoraRows = 64;

template <typename Operand>
inline constexpr int64_t kParts = is_paired<Operand> ? 3 : 1;

/// Numbers that add up to x, exactly. One of them is not finite where x is not.
template <typename Operand, typename Sum>
std::array<Operand, kParts<Operand>> split(Sum x) {
  if constexpr (is_paired<Operand>) {
    std::array<Operand, kParts<Operand>> parts;
    for (Operand& part : parts) {
      part = Operand(static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16), Operand::from_bits());
      x -= static_cast<Sum>(part);
    }
    return parts;
  } else {
    return {x};
  }
}

/// A wide matrix [r, d] of any strides, times a number.
template <typename Sum>
struct Factor {
  const Sum* data;
  int64_t rank_stride, column_stride;
  Sum scale;

  Sum at(int64_t c, int64_t j) const { return scale * data[c * rank_stride + j * column_stride]; }
};

template <typename Types>
class Projection {
 public:
  using Operand = typename Types::Operand;
  using Sum = typename Types::Sum;

  Projection(int64_t r, int64_t d)
      : r_(r), d_(d), packed_(empty_buffer<Operand>(d * width())), sums_(empty_buffer<Sum>(kLoraRows * width())) {}

  void load(const Factor<Sum>& factor) {
    constexpr int64_t kStep = is_paired<Operand> ? 2 : 1;
    Operand* const out = packed_.template mutable_data_ptr<Operand>();
    for (int64_t j = 0; j < d_; ++j) {
      for (int64_t c = 0; c < r_; ++c) {
        const auto parts = split<Operand>(factor.at(c, j));
        for (int64_t p = 0; p < kParts<Operand>; ++p)
          out[(j / kStep * width() + p * r_ + c) * kStep + j % kStep] = parts[static_cast<size_t>(p)];
      }
    }
  }

  void run(const Operand* m, int64_t m_stride, int64_t rows, Sum* p) {
    Sum* const sums = kParts<Operand> == 1 ? p : sums_.template mutable_data_ptr<Sum>();
    block_gemm(rows, width(), d_, m, m_stride, packed_.template const_data_ptr<Operand>(), width(), sums, width(),
               /*accumulate=*/false);
    if constexpr (is_paired<Operand>) {
      for (int64_t i = 0; i < rows; ++i) {
        const Sum* const row = sums + i * width();
        for (int64_t c = 0; c < r_; ++c) p[i * r_ + c] = row[c] + (row[r_ + c] + row[2 * r_ + c]);
      }
    }
  }

 private:
  int64_t width() const { return kParts<Operand> * r_; }

  int64_t r_, d_;
  at::Tensor packed_;  // [d, parts, r]
  at::Tensor sums_;    // [rows, parts, r]
};

template <typename Types>
class RankUpdate {
 public:
  using Element = typename Types::Element;
  using Sum = typename Types::Sum;
  using Bits = std::conditional_t<std::is_same_v<Element, c10::BFloat16>, uint16_t, Element>;

  RankUpdate(int64_t r, int64_t d)
      : r_(r), d_(d), packed_(empty_buffer<Sum>(r * d)), sums_(empty_buffer<Sum>(kRows * kColumns)) {}

  void load(const Factor<Sum>& factor) {
    Sum* out = packed_.template mutable_data_ptr<Sum>();
    for (int64_t c = 0; c < r_; ++c)
      for (int64_t j = 0; j < d_; ++j) *out++ = factor.at(c, j);
  }

  /// Adds to out if `accumulate`.
  void run(const Sum* p, int64_t rows, Element* out, int64_t out_stride, bool accumulate) {
    Sum* const sums = sums_.template mutable_data_ptr<Sum>();
    for (int64_t i = 0; i < rows; i += kRows) {
      const int64_t count = std::min(kRows, rows - i);
      for (int64_t j = 0; j < d_; j += kColumns) {
        const int64_t columns = std::min(kColumns, d_ - j);
        block_gemm(count, columns, r_, p + i * r_, r_, packed_.template const_data_ptr<Sum>() + j, d_, sums, columns,
                   /*accumulate=*/false);
        round_rows(sums, count, columns, reinterpret_cast<Bits*>(out + i * out_stride + j), out_stride, accumulate);
      }
    }
  }

 private:
  static constexpr int64_t kRows = 16;      // a few long rows: memory is read in order
  static constexpr int64_t kColumns = 512;  // with kRows: 32 KiB of float sums, inside the L1 cache

  int64_t r_, d_;
  at::Tensor packed_, sums_;
};

template <typename Types>
class OuterProduct {
 public:
  using Operand = typename Types::Operand;
  using Sum = typename Types::Sum;

  OuterProduct(int64_t r, int64_t d)
      : r_(r), d_(d), left_(empty_buffer<Operand>(height() * kLoraRows)), sums_(empty_buffer<Sum>(height() * d)) {}

  void start() { is_empty_ = true; }

  /// m as right operand.
  void add(const Sum* p, const Operand* m, int64_t m_stride, int64_t rows) {
    const int64_t inner = is_paired<Operand> ? round_up(rows, 2) : rows;
    Operand* const left = left_.template mutable_data_ptr<Operand>();
    for (int64_t c = 0; c < r_; ++c) {
      for (int64_t i = 0; i < inner; ++i) {
        const auto parts = split<Operand>(i < rows ? p[i * r_ + c] : Sum(0));
        for (int64_t part = 0; part < kParts<Operand>; ++part)
          left[(part * r_ + c) * kLoraRows + i] = parts[static_cast<size_t>(part)];
      }
    }
    block_gemm(height(), d_, inner, left, kLoraRows, m, m_stride, sums_.template mutable_data_ptr<Sum>(), d_,
               /*accumulate=*/!is_empty_);
    is_empty_ = false;
  }

  /// Of all rows since start, of which there must be one.
  void finish(Sum* out) const {
    const Sum* const sums = sums_.template const_data_ptr<Sum>();
    const int64_t part = r_ * d_;
    for (int64_t i = 0; i < part; ++i) {
      out[i] = sums[i];
      if constexpr (is_paired<Operand>) out[i] += sums[part + i] + sums[2 * part + i];
    }
  }

 private:
  int64_t height() const { return kParts<Operand> * r_; }

  int64_t r_, d_;
  at::Tensor left_;  // [parts, r, kLoraRows]
  at::Tensor sums_;  // [parts, r, d]
  bool is_empty_ = true;
};

}  // namespace titer::cpu
