// Operands of block_gemm made from rows of tensors: left operands are read in place, right operands are packed. Rows
// of float16, and of bfloat16 where the machine cannot multiply blocks of it, become float32 on the way.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cpu/block_gemm.h"

namespace titer::cpu {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t unit) { return ceil_div(a, unit) * unit; }

/// Types of one call. Element: what the tensors hold. Operand: what blocks are multiplied in. Sum: what products are
/// accumulated in.
template <typename ElementT, typename OperandT, typename SumT>
struct BlockTypes {
  using Element = ElementT;
  using Operand = OperandT;
  using Sum = SumT;
};

/// Calls function with the BlockTypes for elements of this dtype.
///
/// @param is_even  are inner dimensions, and the distances of rows that are read in place, even? oneDNN's bfloat16
/// kernels
///                 read them in pairs and crash on an odd one.
template <typename Function>
void dispatch_block_types(at::ScalarType dtype, bool is_even, const Function& function) {
  switch (dtype) {
    case at::kFloat:
      return function(BlockTypes<float, float, float>());
    case at::kDouble:
      return function(BlockTypes<double, double, double>());
    case at::kHalf:
      return function(BlockTypes<c10::Half, float, float>());
    default:
      if (is_even && has_bfloat16_block_gemm()) return function(BlockTypes<c10::BFloat16, c10::BFloat16, float>());
      return function(BlockTypes<c10::BFloat16, float, float>());
  }
}

template <typename T>
inline constexpr bool is_paired = std::is_same_v<T, c10::BFloat16>;  ///< right operands interleave pairs of rows

template <typename T>
at::Tensor empty_buffer(int64_t size) {
  return at::empty({size}, c10::CppTypeToScalarType<T>::value);
}

/// Asks for rows that the next product reads while this one is computed; they lie too far apart for the processor to
/// see a pattern.
template <typename T>
void prefetch_rows(const T* rows, int64_t count, int64_t stride, int64_t width) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t r = 0; r < count; ++r)
    for (int64_t i = 0; i < width; i += kLine) __builtin_prefetch(rows + r * stride + i, /*rw=*/0, /*locality=*/2);
}

/// Whether pack_columns can read rows along this dimension: words of 4 bytes at distances that 32-bit arithmetic holds.
inline bool is_packable(const at::Tensor& x, int64_t row_dim) {
  bool aligned = reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 4 == 0;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) aligned = aligned && x.stride(i) * x.element_size() % 4 == 0;
  return aligned && x.stride(row_dim) * x.element_size() < int64_t{1} << 26;
}

/// Writes rows [num_rows, n] as a right operand, [num_rows, n] or pairs [ceil(num_rows / 2), n, 2]; a missing partner
/// of the last row is zero.
template <typename Element, typename Operand>
void pack_rows(const Element* rows, int64_t row_stride, int64_t num_rows, int64_t n, Operand* out) {
  if constexpr (is_paired<Operand>) {
    // As words of two numbers, the first in the lower half, compilers use vectors for it.
    const auto bits = [&](int64_t r) { return reinterpret_cast<const uint16_t*>(rows + r * row_stride); };
    uint32_t* __restrict pairs = reinterpret_cast<uint32_t*>(out);
    for (int64_t r = 0; r < num_rows; r += 2, pairs += n) {
      const uint16_t* const __restrict first = bits(r);
      if (r + 1 < num_rows) {
        const uint16_t* const __restrict second = bits(r + 1);
        for (int64_t j = 0; j < n; ++j) pairs[j] = first[j] | static_cast<uint32_t>(second[j]) << 16;
      } else {
        for (int64_t j = 0; j < n; ++j) pairs[j] = first[j];
      }
    }
  } else {
    for (int64_t r = 0; r < num_rows; ++r, out += n) {
      std::transform(rows + r * row_stride, rows + r * row_stride + n, out, [](Element x) { return Operand(x); });
    }
  }
}

/// Rows of a matrix, transposed to right operands: one [d, columns] matrix (pairs of rows interleaved for bfloat16) per
/// block of `block_size` rows. The columns of the last block are padded with zeros to a multiple of `align`.
template <typename Types>
class TransposedBlocks {
 public:
  using Element = typename Types::Element;
  using Operand = typename Types::Operand;

  TransposedBlocks(const at::Tensor& matrix, int64_t first_row, int64_t num_rows, int64_t block_size, int64_t align)
      : num_rows_(num_rows), d_(matrix.size(1)), block_size_(block_size), align_(align) {
    storage_ = empty_buffer<Operand>(num_blocks() * block_size_ * d_);
    Operand* const out = storage_.template mutable_data_ptr<Operand>();
    const Element* const in = matrix.const_data_ptr<Element>() + first_row * matrix.stride(0);
    const int64_t row_stride = matrix.stride(0), column_stride = matrix.stride(1);
    at::parallel_for(
        0, num_blocks(), std::max<int64_t>(1, 65536 / (block_size_ * d_)), [&](int64_t begin, int64_t end) {
          for (int64_t b = begin; b < end; ++b) {
            pack(in + b * block_size_ * row_stride, row_stride, column_stride, b, out + b * block_size_ * d_);
          }
        });
  }

  int64_t num_blocks() const { return ceil_div(num_rows_, block_size_); }
  int64_t num_rows(int64_t b) const { return std::min(block_size_, num_rows_ - b * block_size_); }
  int64_t num_columns(int64_t b) const { return round_up(num_rows(b), align_); }
  const Operand* block(int64_t b) const { return storage_.template const_data_ptr<Operand>() + b * block_size_ * d_; }

 private:
  void pack(const Element* rows, int64_t row_stride, int64_t column_stride, int64_t b, Operand* out) const {
    constexpr int64_t kStep = is_paired<Operand> ? 2 : 1;
    for (int64_t k = 0; k < d_; k += kStep) {
      for (int64_t c = 0; c < num_columns(b); ++c) {
        for (int64_t i = 0; i < kStep; ++i) {
          *out++ = c < num_rows(b) ? Operand(rows[c * row_stride + (k + i) * column_stride]) : Operand(0);
        }
      }
    }
  }

  int64_t num_rows_, d_, block_size_, align_;
  at::Tensor storage_;
};

/// A few rows of a row-major matrix as left operand and, if asked for, as right operand. One per thread.
template <typename Types>
class RowTile {
 public:
  using Element = typename Types::Element;
  using Operand = typename Types::Operand;

  RowTile(const at::Tensor& matrix, int64_t max_rows, bool needs_right)
      : rows_(matrix.const_data_ptr<Element>()), row_stride_(matrix.stride(0)), d_(matrix.size(1)) {
    packs_right_ = needs_right && is_paired<Operand>;
    if (packs_right_ || kConverts) packed_ = empty_buffer<Operand>(round_up(max_rows, 2) * d_);
  }

  void load(int64_t first_row, int64_t num_rows) {
    in_place_ = rows_ + first_row * row_stride_;
    if (packed_.defined()) {
      pack_rows(in_place_, row_stride_, num_rows, d_, packed_.template mutable_data_ptr<Operand>());
    }
  }

  void prefetch(int64_t first_row, int64_t num_rows) const {
    prefetch_rows(rows_ + first_row * row_stride_, num_rows, row_stride_, d_);
  }

  const Operand* left() const {
    if constexpr (kConverts)
      return packed_.template const_data_ptr<Operand>();
    else
      return in_place_;
  }
  int64_t left_stride() const { return kConverts ? d_ : row_stride_; }
  const Operand* right() const { return packs_right_ ? packed_.template const_data_ptr<Operand>() : left(); }
  int64_t right_stride() const { return packs_right_ ? d_ : left_stride(); }

 private:
  static constexpr bool kConverts = !std::is_same_v<Element, Operand>;

  const Element* rows_;
  const Element* in_place_ = nullptr;
  int64_t row_stride_, d_;
  bool packs_right_;
  at::Tensor packed_;
};

}  // namespace titer::cpu
