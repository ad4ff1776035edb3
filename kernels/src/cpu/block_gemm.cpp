#include "cpu/block_gemm.h"

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

namespace titer::cpu {
namespace {

namespace cpublas = at::native::cpublas;

// Longer inner dimensions push the block of B out of the L2 cache; measured at d = 4096.
constexpr int64_t kMaxInner = 1024;

template <typename Operand>
void brgemm_blocks(int64_t m, int64_t n, int64_t k, const Operand* a, int64_t lda, const Operand* b, int64_t ldb,
                   float* c, int64_t ldc, bool accumulate) {
  constexpr bool kPaired = std::is_same_v<Operand, c10::BFloat16>;
  for (int64_t begin = 0; begin < k; begin += kMaxInner) {
    cpublas::brgemm(m, n, std::min(kMaxInner, k - begin), lda, ldb, ldc, accumulate || begin > 0, a + begin,
                    b + begin * ldb, c, kPaired);
  }
}

}  // namespace

bool has_bfloat16_block_gemm() { return cpublas::could_pack(at::kBFloat16); }

void block_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                int64_t ldc, bool accumulate) {
  brgemm_blocks(m, n, k, a, lda, b, ldb, c, ldc, accumulate);
}

void block_gemm(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda, const c10::BFloat16* b,
                int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  brgemm_blocks(m, n, k, a, lda, b, ldb, c, ldc, accumulate);
}

// There is no double block kernel; float64 serves gradient checks and oracles, where at::mm is fast enough.
void block_gemm(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb, double* c,
                int64_t ldc, bool accumulate) {
  const c10::InferenceMode no_autograd;
  const auto matrix = [](const double* data, int64_t rows, int64_t columns, int64_t ld) {
    return at::from_blob(const_cast<double*>(data), {rows, columns}, {ld, 1}, at::kDouble);
  };
  at::Tensor result = matrix(c, m, n, ldc);
  if (accumulate) {
    at::addmm_out(result, result, matrix(a, m, k, lda), matrix(b, k, n, ldb));
  } else {
    at::mm_out(result, matrix(a, m, k, lda), matrix(b, k, n, ldb));
  }
}

BlockGemmScope::~BlockGemmScope() { cpublas::brgemm_release(/*is_vnni=*/true); }

}  // namespace titer::cpu
