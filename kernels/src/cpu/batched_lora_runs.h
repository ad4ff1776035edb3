// How the CPU passes of batched_lora cut the packed rows of K runs, and find the factors of a run.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <vector>

#include "batched_lora.h"
#include "cpu/low_rank_products.h"
#include "tensor_checks.h"

namespace titer::cpu {

/// Rows [first, first + count) of the packed ones belong to one run.
struct RunRows {
  int64_t run, first, count;
};

/// Every run cut into pieces of `size` rows, its last one shorter.
inline std::vector<RunRows> rows_of_runs(const at::Tensor& rows, int64_t size) {
  std::vector<RunRows> out;
  int64_t first = 0;
  for (int64_t run = 0; run < rows.size(0); ++run) {
    const int64_t end = first + rows.const_data_ptr<int64_t>()[run];
    for (; first < end; first += out.back().count) out.push_back({run, first, std::min(size, end - first)});
  }
  return out;
}

/// a [r, d_in] and bᵀ [r, d_out] of a run.
template <typename Sum>
Factor<Sum> factor_a(const LoraInputs& inputs, int64_t run) {
  const at::Tensor& a = inputs.a;
  return {a.const_data_ptr<Sum>() + run * a.stride(0), a.stride(1), a.stride(2), Sum(1)};
}
template <typename Sum>
Factor<Sum> factor_b(const LoraInputs& inputs, int64_t run, double scale) {
  const at::Tensor& b = inputs.b;
  return {b.const_data_ptr<Sum>() + run * b.stride(0), b.stride(2), b.stride(1), static_cast<Sum>(scale)};
}

/// What block products read in place: dense rows that lie apart.
inline at::Tensor readable_rows(const at::Tensor& x) {
  return has_dense_rows(x) && x.stride(0) >= x.size(1) ? x : x.clone(at::MemoryFormat::Contiguous);
}

inline bool has_even_rows(const at::Tensor& x) { return x.size(1) % 2 == 0 && x.stride(0) % 2 == 0; }

}  // namespace titer::cpu
