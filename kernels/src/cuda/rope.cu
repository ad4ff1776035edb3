#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/rope.cuh"
#include "cuda/vector_access.cuh"

namespace titer::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int64_t kMaxThreads = 256;

// Products that the compiler does not fuse with the sum behind them: every layout gives the same bits.
__device__ float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ double rounded_product(double a, double b) { return __dmul_rn(a, b); }

// Rounded to T where torch would: if the table is no wider.
template <typename T, typename Table>
__device__ Wide<T> product(Wide<T> x, Table angle) {
  const Wide<T> wide = rounded_product(x, widen(angle));
  return sizeof(Table) == sizeof(T) ? widen(narrow(wide, T())) : wide;
}

// One block per row. An item is kCount elements of the first half of a head with their partners in the second, or
// kCount elements that are copied.
template <typename T, typename Table, int kCount>
__global__ void rotate_kernel(RopeRows<T, Table> heads) {
  using Elements = Vector<T, kCount>;
  using Angles = Vector<Table, kCount>;
  const int64_t row = blockIdx.x;
  const T* const x_row = heads.x + row * heads.x_strides.row;
  T* const out_row = heads.out + row * heads.out_strides.row;
  const Table* const cos = heads.cos + row * heads.cos_stride;
  const Table* const sin = heads.sin + row * heads.sin_stride;
  const int half = static_cast<int>(heads.half);
  const int inner = static_cast<int>(heads.inner);
  const int rotated = half / kCount, items = rotated + static_cast<int>(heads.rest) / kCount;
  const int total = static_cast<int>(heads.outer) * inner * items;
  for (int i = static_cast<int>(threadIdx.x); i < total; i += static_cast<int>(blockDim.x)) {
    const int head = i / items, item = i % items;
    const int64_t o = head / inner, n = head % inner;
    const T* const x = x_row + o * heads.x_strides.outer + n * heads.x_strides.inner;
    T* const out = out_row + o * heads.out_strides.outer + n * heads.out_strides.inner;
    if (item >= rotated) {
      const int at = 2 * half + (item - rotated) * kCount;
      *reinterpret_cast<Elements*>(out + at) = *reinterpret_cast<const Elements*>(x + at);
      continue;
    }
    const int at = item * kCount;
    const auto first = *reinterpret_cast<const Elements*>(x + at);
    const auto second = *reinterpret_cast<const Elements*>(x + half + at);
    const auto c = *reinterpret_cast<const Angles*>(cos + at);
    const auto s = *reinterpret_cast<const Angles*>(sin + at);
    Elements out_first, out_second;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const auto a = widen(first.at[j]), b = widen(second.at[j]);
      out_first.at[j] = narrow(product<T>(a, c.at[j]) - product<T>(b, s.at[j]), T());
      out_second.at[j] = narrow(product<T>(b, c.at[j]) + product<T>(a, s.at[j]), T());
    }
    *reinterpret_cast<Elements*>(out + at) = out_first;
    *reinterpret_cast<Elements*>(out + half + at) = out_second;
  }
}

template <typename T, typename Table>
bool allows_vectors_of(const RopeRows<T, Table>& heads, int64_t count) {
  const auto size = static_cast<int64_t>(sizeof(T)), table_size = static_cast<int64_t>(sizeof(Table));
  if (!is_aligned(heads.x, count * size) || !is_aligned(heads.out, count * size)) return false;
  if (!is_aligned(heads.cos, count * table_size) || !is_aligned(heads.sin, count * table_size)) return false;
  return are_divisible(
      {heads.half, heads.rest, heads.x_strides.row, heads.x_strides.outer, heads.x_strides.inner, heads.out_strides.row,
       heads.out_strides.outer, heads.out_strides.inner, heads.cos_stride, heads.sin_stride},
      count);
}

template <int kCount, typename T, typename Table>
cudaError_t rotate(const RopeRows<T, Table>& heads, cudaStream_t stream) {
  const int64_t total = heads.outer * heads.inner * (heads.half + heads.rest) / kCount;
  const int64_t threads = std::min((total + kWarp - 1) / kWarp * kWarp, kMaxThreads);
  return launch(rotate_kernel<T, Table, kCount>,
                {static_cast<unsigned>(heads.rows), static_cast<unsigned>(threads), stream}, heads);
}

}  // namespace

template <typename T, typename Table>
cudaError_t rotate_rows(const RopeRows<T, Table>& heads, cudaStream_t stream) {
  // The wider of both types fills an access; a narrower table or element then takes half of one.
  constexpr int kCount = kAccessBytes / (sizeof(T) > sizeof(Table) ? sizeof(T) : sizeof(Table));
  return allows_vectors_of(heads, kCount) ? rotate<kCount>(heads, stream) : rotate<1>(heads, stream);
}

#define TITER_INSTANTIATE(T, Table) template cudaError_t rotate_rows(const RopeRows<T, Table>&, cudaStream_t);
TITER_INSTANTIATE(float, float)
TITER_INSTANTIATE(double, double)
TITER_INSTANTIATE(__nv_bfloat16, __nv_bfloat16)
TITER_INSTANTIATE(__nv_bfloat16, float)
TITER_INSTANTIATE(__half, __half)
TITER_INSTANTIATE(__half, float)

}  // namespace titer::cuda
