// Products of blocks that stay in one core's cache, called from inside at::parallel_for. The only place that uses
// at::native::cpublas (oneDNN's AMX, AVX-512 and AVX2 block kernels), whose functions change between torch releases.
#pragma once

#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstdint>

namespace titer::cpu {

/// True where bfloat16 blocks are multiplied natively (AMX). Elsewhere callers convert blocks to float32 first.
bool has_bfloat16_block_gemm();

/// C [m, n] = A [m, k] · B [k, n], or C += A · B if `accumulate`. Row-major, leading dimensions in elements.
///
/// bfloat16 needs k, lda even and takes B with pairs of rows interleaved, [k / 2, ldb, 2]: element (i, j) lies at
/// (i / 2 * ldb + j) * 2 + i % 2. Sums are float32.
void block_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                int64_t ldc, bool accumulate);
void block_gemm(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb, double* c,
                int64_t ldc, bool accumulate);
void block_gemm(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda, const c10::BFloat16* b,
                int64_t ldb, float* c, int64_t ldc, bool accumulate);

/// Every thread that calls block_gemm holds one: it gives the matrix unit (AMX tiles) back to the thread's other work.
class BlockGemmScope {
 public:
  BlockGemmScope() = default;
  ~BlockGemmScope();
  BlockGemmScope(const BlockGemmScope&) = delete;
  BlockGemmScope& operator=(const BlockGemmScope&) = delete;
};

/// Smallest share of `num_items` equal work items that is worth another thread; products of fewer than a million
/// multiply-adds are done before a second thread has woken up.
inline int64_t worthwhile_items(int64_t num_items, int64_t multiply_adds) {
  constexpr int64_t kWorthwhile = int64_t{1} << 20;
  return std::max<int64_t>(1, num_items * kWorthwhile / std::max<int64_t>(1, multiply_adds));
}

}  // namespace titer::cpu
