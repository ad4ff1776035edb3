#include <algorithm>

#include "cuda/batched_lora.cuh"
#include "cuda/launch.cuh"

namespace titer::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 16;   // of out that a block computes, in registers
constexpr int kRanks = 32;  // of p in shared memory at a time
constexpr int64_t kMaxBlocks = 65535;

// A thread computes kCount columns of kRows rows, so that a number of the factor that it loads is used kRows times.
template <typename T, int kCount>
__global__ void update_kernel(LowRankUpdate<T> u) {
  using W = Wide<T>;
  __shared__ W p[kRows][kRanks];
  const int64_t column = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * kCount;
  const int64_t run = blockIdx.z;
  for (int64_t row = blockIdx.y * int64_t{kRows}; row < u.rows; row += gridDim.y * int64_t{kRows}) {
    const W* const first_p = u.p + (run * u.rows + row) * u.r;
    const int count = static_cast<int>(min(int64_t{kRows}, u.rows - row));
    W sums[kRows][kCount] = {};
    for (int64_t rank = 0; rank < u.r; rank += kRanks) {
      const int ranks = static_cast<int>(min(int64_t{kRanks}, u.r - rank));
      __syncthreads();  // the ranks before have been read
      for (int i = threadIdx.x; i < kRows * kRanks; i += kThreads) {
        const int r = i / kRanks, c = i % kRanks;
        p[r][c] = r < count && c < ranks ? first_p[r * u.r + rank + c] : W(0);
      }
      __syncthreads();
      if (column >= u.d) continue;
      const W* const factor = u.factor + (run * u.r + rank) * u.d + column;
      for (int c = 0; c < ranks; ++c) {
        const auto f = *reinterpret_cast<const Vector<W, kCount>*>(factor + c * u.d);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int j = 0; j < kCount; ++j) sums[r][j] += p[r][c] * f.at[j];
        }
      }
    }
    if (column >= u.d) continue;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= count) break;
      auto* const out = reinterpret_cast<Vector<T, kCount>*>(u.out + (run * u.rows + row + r) * u.out_stride + column);
      Vector<T, kCount> result;
      if (u.accumulate) result = *out;
#pragma unroll
      for (int j = 0; j < kCount; ++j)
        result.at[j] = narrow(u.accumulate ? widen(result.at[j]) + sums[r][j] : sums[r][j], T());
      *out = result;
    }
  }
}

template <typename T, int kCount>
cudaError_t update_part(const LowRankUpdate<T>& u, cudaStream_t stream) {
  constexpr int64_t kColumns = int64_t{kThreads} * kCount;
  const dim3 blocks(static_cast<unsigned>((u.d + kColumns - 1) / kColumns),
                    static_cast<unsigned>(std::min((u.rows + kRows - 1) / kRows, kMaxBlocks)),
                    static_cast<unsigned>(u.runs));
  return launch(update_kernel<T, kCount>, {blocks, kThreads, stream}, u);
}

}  // namespace

template <typename T>
cudaError_t update_rows(const LowRankUpdate<T>& update, cudaStream_t stream) {
  constexpr int kCount = static_cast<int>(kAccessBytes / static_cast<int64_t>(sizeof(Wide<T>)));
  for (int64_t run = 0; run < update.runs; run += kMaxBlocks) {
    LowRankUpdate<T> part = update;
    part.runs = std::min(kMaxBlocks, update.runs - run);
    part.p += run * update.rows * update.r;
    part.factor += run * update.r * update.d;
    part.out += run * update.rows * update.out_stride;
    const bool allows_vectors = is_aligned(part.factor, kAccessBytes) &&
                                is_aligned(part.out, kCount * static_cast<int64_t>(sizeof(T))) &&
                                are_divisible({part.d, part.out_stride}, kCount);
    const cudaError_t error = allows_vectors ? update_part<T, kCount>(part, stream) : update_part<T, 1>(part, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

#define TITER_INSTANTIATE(T) template cudaError_t update_rows(const LowRankUpdate<T>&, cudaStream_t);
TITER_INSTANTIATE(float)
TITER_INSTANTIATE(double)
TITER_INSTANTIATE(__nv_bfloat16)
TITER_INSTANTIATE(__half)

}  // namespace titer::cuda
