#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/rms_norm.cuh"
#include "cuda/vector_access.cuh"

namespace titer::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int64_t kMaxThreads = 512;

// The sum over the block in every thread. Blocks are whole warps.
template <typename W>
__device__ W block_sum(W x) {
  __shared__ W sums[kMaxThreads / kWarp];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_down_sync(0xFFFFFFFF, x, offset);
  __syncthreads();  // sums of an earlier call have been read
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = sums[0];
  for (unsigned w = 1; w < blockDim.x / kWarp; ++w) x += sums[w];
  return x;
}

template <typename T, int kCount>
__device__ Vector<T, kCount> load(const T* row, int64_t i) {
  return *reinterpret_cast<const Vector<T, kCount>*>(row + i * kCount);
}

// Both kernels: one block per row, whose second pass finds the row in the L1 cache.
template <typename T, int kCount>
__global__ void normalise_kernel(RmsNormRows<T> rows) {
  using W = Wide<T>;
  const T* const x = rows.x + blockIdx.x * rows.x_stride;
  const T* const residual = rows.residual == nullptr ? nullptr : rows.residual + blockIdx.x * rows.residual_stride;
  T* const out = rows.out + blockIdx.x * rows.out_stride;
  W sum = 0;
  for (int64_t i = threadIdx.x; i < rows.d / kCount; i += blockDim.x) {
    const auto v = load<T, kCount>(x, i);
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum += widen(v.at[j]) * widen(v.at[j]);
  }
  const W factor = 1 / sqrt(block_sum(sum) / static_cast<W>(rows.d) + static_cast<W>(rows.eps));
  const W offset = static_cast<W>(rows.weight_offset);
  for (int64_t i = threadIdx.x; i < rows.d / kCount; i += blockDim.x) {
    const auto v = load<T, kCount>(x, i), weight = load<T, kCount>(rows.weight, i);
    Vector<T, kCount> result;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      W normal = widen(v.at[j]) * factor;
      if (rows.rounds_first) normal = widen(narrow(normal, T()));
      result.at[j] = narrow(normal * (widen(weight.at[j]) + offset), T());
    }
    if (residual != nullptr) {
      const auto base = load<T, kCount>(residual, i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) result.at[j] = narrow(widen(base.at[j]) + widen(result.at[j]), T());
    }
    *reinterpret_cast<Vector<T, kCount>*>(out + i * kCount) = result;
  }
}

template <typename T, int kCount>
__global__ void backward_kernel(RmsNormGradRows<T> all) {
  using W = Wide<T>;
  const RmsNormRows<T>& rows = all.rows;
  const T* const x = rows.x + blockIdx.x * rows.x_stride;
  const T* const grad = all.grad + blockIdx.x * all.grad_stride;
  T* const out = rows.out + blockIdx.x * rows.out_stride;
  const W offset = static_cast<W>(rows.weight_offset);
  W squares = 0, dot = 0;
  for (int64_t i = threadIdx.x; i < rows.d / kCount; i += blockDim.x) {
    const auto v = load<T, kCount>(x, i), g = load<T, kCount>(grad, i), weight = load<T, kCount>(rows.weight, i);
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      squares += widen(v.at[j]) * widen(v.at[j]);
      dot += widen(v.at[j]) * (widen(g.at[j]) * (widen(weight.at[j]) + offset));
    }
  }
  const W d = static_cast<W>(rows.d);
  const W factor = 1 / sqrt(block_sum(squares) / d + static_cast<W>(rows.eps));
  const W along = factor * factor * (block_sum(dot) / d);
  for (int64_t i = threadIdx.x; i < rows.d / kCount; i += blockDim.x) {
    const auto v = load<T, kCount>(x, i), g = load<T, kCount>(grad, i), weight = load<T, kCount>(rows.weight, i);
    Vector<T, kCount> result;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const W scaled = widen(g.at[j]) * (widen(weight.at[j]) + offset);
      result.at[j] = narrow(factor * (scaled - along * widen(v.at[j])), T());
    }
    *reinterpret_cast<Vector<T, kCount>*>(out + i * kCount) = result;
  }
}

template <typename T>
bool allows_vectors_of(const RmsNormRows<T>& rows, int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  return is_aligned(rows.x, bytes) && is_aligned(rows.weight, bytes) && is_aligned(rows.residual, bytes) &&
         is_aligned(rows.out, bytes) &&
         are_divisible({rows.d, rows.x_stride, rows.residual_stride, rows.out_stride}, count);
}

unsigned threads_for(int64_t accesses) {
  return static_cast<unsigned>(std::min((accesses + kWarp - 1) / kWarp * kWarp, kMaxThreads));
}

template <typename T>
constexpr int kVector = static_cast<int>(kAccessBytes / static_cast<int64_t>(sizeof(T)));

}  // namespace

template <typename T>
cudaError_t normalise_rows(const RmsNormRows<T>& rows, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(rows.rows);
  if (allows_vectors_of(rows, kVector<T>)) {
    return launch(normalise_kernel<T, kVector<T>>, {blocks, threads_for(rows.d / kVector<T>), stream}, rows);
  }
  return launch(normalise_kernel<T, 1>, {blocks, threads_for(rows.d), stream}, rows);
}

template <typename T>
cudaError_t normalise_rows_backward(const RmsNormGradRows<T>& all, cudaStream_t stream) {
  const RmsNormRows<T>& rows = all.rows;
  const auto blocks = static_cast<unsigned>(rows.rows);
  if (allows_vectors_of(rows, kVector<T>) && is_aligned(all.grad, kAccessBytes) &&
      are_divisible({all.grad_stride}, kVector<T>)) {
    return launch(backward_kernel<T, kVector<T>>, {blocks, threads_for(rows.d / kVector<T>), stream}, all);
  }
  return launch(backward_kernel<T, 1>, {blocks, threads_for(rows.d), stream}, all);
}

#define TITER_INSTANTIATE(T)                                                \
  template cudaError_t normalise_rows(const RmsNormRows<T>&, cudaStream_t); \
  template cudaError_t normalise_rows_backward(const RmsNormGradRows<T>&, cudaStream_t);
TITER_INSTANTIATE(float)
TITER_INSTANTIATE(double)
TITER_INSTANTIATE(__nv_bfloat16)
TITER_INSTANTIATE(__half)

}  // namespace titer::cuda
