#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/launch.cuh"
#include "cuda/token_gradient_topk.cuh"

namespace titer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocksY = 65535;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Bits of floats order like integers where the sign is positive; flipping the others makes it so everywhere. It is its
// own inverse.
__device__ int32_t ordered(int32_t bits) { return bits < 0 ? bits ^ 0x7FFFFFFF : bits; }

__global__ void write_kernel(const float* scores, int64_t num_rows, int64_t num_tokens, int64_t first_token,
                             const bool* allowed, int64_t* keys, int64_t key_stride, bool* broken) {
  const int64_t j = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (j >= num_tokens) return;
  const bool is_allowed = allowed[j];
  for (int64_t r = blockIdx.y; r < num_rows; r += gridDim.y) {
    int64_t key = kNoToken;
    if (is_allowed) {
      const float score = scores[r * num_tokens + j] + 0.0f;  // -0 and 0 are one score
      if (!isfinite(score)) broken[r] = true;
      const auto high = static_cast<uint64_t>(static_cast<uint32_t>(ordered(__float_as_int(score)))) << 32;
      key = static_cast<int64_t>(high | static_cast<uint32_t>(first_token + j));
    }
    keys[r * key_stride + j] = key;
  }
}

__global__ void read_kernel(const int64_t* keys, int64_t num_rows, int64_t k, const bool* broken, int64_t* ids,
                            float* scores) {
  const int64_t j = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (j >= k) return;
  for (int64_t r = blockIdx.y; r < num_rows; r += gridDim.y) {
    const int64_t key = keys[r * k + j];
    const bool is_token = key != kNoToken && !broken[r];
    const float score = __int_as_float(ordered(static_cast<int32_t>(key >> 32)));
    ids[r * k + j] = is_token ? key & 0xFFFFFFFF : -1;
    scores[r * k + j] = is_token ? score : broken[r] ? kNaN : kInfinity;
  }
}

dim3 blocks_for(int64_t num_rows, int64_t width) {
  return {static_cast<unsigned>((width + kThreads - 1) / kThreads),
          static_cast<unsigned>(std::min(num_rows, kMaxBlocksY)), 1};
}

}  // namespace

cudaError_t write_keys(const float* scores, int64_t num_rows, int64_t num_tokens, int64_t first_token,
                       const bool* allowed, int64_t* keys, int64_t key_stride, bool* broken, cudaStream_t stream) {
  return launch(write_kernel, {blocks_for(num_rows, num_tokens), kThreads, stream}, scores, num_rows, num_tokens,
                first_token, allowed, keys, key_stride, broken);
}

cudaError_t read_keys(const int64_t* keys, int64_t num_rows, int64_t k, const bool* broken, int64_t* ids, float* scores,
                      cudaStream_t stream) {
  return launch(read_kernel, {blocks_for(num_rows, k), kThreads, stream}, keys, num_rows, k, broken, ids, scores);
}

}  // namespace titer::cuda
