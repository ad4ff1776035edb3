// The stand-ins of tensor core instructions, against plain products and copies, with fragments as a kernel gathers
// them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "cuda/launch.cuh"
#include "cuda/mma.cuh"

namespace titer::cuda_on_cpu {
namespace {

using cuda::launch;

/// a [16, 16] and b [16, 8] as rows in dynamic shared memory; c [16, 8].
template <typename T>
__global__ void multiply_kernel(const T* a, const T* b, float* c) {
  T* const shared = static_cast<T*>(cuda::dynamic_shared_memory());
  T *const shared_a = shared, *const shared_b = shared + 256;
  for (unsigned i = threadIdx.x; i < 32; i += kWarp) cuda::copy_async(shared_a + 8 * i, a + 8 * i, true);
  cuda::copy_async(shared_b + 8 * threadIdx.x, b + 8 * threadIdx.x % 128, threadIdx.x < 16);
  cuda::wait_for_copies();
  __syncwarp();
  const unsigned row = threadIdx.x % 16, column = threadIdx.x / 16 * 8;
  uint32_t fragment_a[4], fragment_b[4];
  cuda::load_matrices(fragment_a, shared_a + 16 * row + column);
  cuda::load_transposed_matrices(fragment_b, shared_b + 8 * threadIdx.x);  // the last two matrices are zeros
  float sums[4] = {1, 1, 1, 1};
  cuda::mma_16x8x16(sums, fragment_a, {fragment_b[0], fragment_b[1]}, T());
  for (unsigned i = 0; i < 4; ++i) c[(threadIdx.x / 4 + i / 2 * 8) * 8 + threadIdx.x % 4 * 2 + i % 2] = sums[i];
  EXPECT_EQ(fragment_b[2] | fragment_b[3], 0U);
}

template <typename T>
void expect_products() {
  alignas(16) T a[256], b[128];
  for (int i = 0; i < 256; ++i) a[i] = T(static_cast<float>(i % 7 - 3));
  for (int i = 0; i < 128; ++i) b[i] = T(static_cast<float>(i % 5 - 2));
  std::vector<float> c(128);
  const T *const first_a = a, *const first_b = b;
  EXPECT_EQ(launch(multiply_kernel<T>, {1, kWarp, nullptr, 1024}, first_a, first_b, c.data()), cudaSuccess);
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float expected = 1;
      for (int k = 0; k < 16; ++k) {
        expected += static_cast<float>(a[row * 16 + k]) * static_cast<float>(b[k * 8 + column]);
      }
      EXPECT_EQ(c[row * 8 + column], expected) << row << " " << column;
    }
  }
}

TEST(CudaOnCpu, tensor_cores_multiply) {
  expect_products<__nv_bfloat16>();
  expect_products<__half>();
}

__global__ void impatient_kernel(const float* from, float* to) {
  auto* const shared = static_cast<float*>(cuda::dynamic_shared_memory());
  cuda::copy_async(shared, from, true);
  *to = shared[0];
}

TEST(CudaOnCpu, a_copy_that_nobody_waits_for_may_have_arrived_or_not) {
  alignas(16) const float from[4] = {1, 2, 3, 4};
  int arrived = 0;
  for (int i = 0; i < 64; ++i) {
    float to = 0;
    EXPECT_EQ(launch(impatient_kernel, {1, 1, nullptr, 16}, from, &to), cudaSuccess);
    EXPECT_TRUE(to == 1 || std::isnan(to)) << to;
    arrived += to == 1 ? 1 : 0;
  }
  EXPECT_GT(arrived, 0);
  EXPECT_LT(arrived, 64);
}

__global__ void misaligned_kernel(const float* from) {
  cuda::copy_async(static_cast<float*>(cuda::dynamic_shared_memory()) + threadIdx.x, from, true);
}

TEST(CudaOnCpu, misaligned_copies_are_refused) {
  alignas(16) const float from[4] = {};
  EXPECT_THAT(
      [&] {
        launch(misaligned_kernel, {1, 2, nullptr, 32}, from);
      },
      testing::ThrowsMessage<std::runtime_error>(
          testing::HasSubstr("thread 1: an address must be divisible by 16 at mma_test.cpp:")));
}

}  // namespace
}  // namespace titer::cuda_on_cpu
