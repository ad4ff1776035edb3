// What the CPU's stand-in for a GPU shows and refuses, on kernels that are right and on their broken twins.
#include "thread_block.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <numeric>
#include <set>
#include <stdexcept>
#include <vector>

#include "cuda/launch.cuh"

namespace titer::cuda_on_cpu {
namespace {

using cuda::launch;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr unsigned kThreads = 96;

__global__ void write_places_kernel(std::vector<int>* places) {
  (*places)[(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x * blockDim.x + blockIdx.x * blockDim.x + threadIdx.x]++;
}

TEST(CudaOnCpu, every_thread_of_the_grid_runs_once) {
  std::vector<int> places(3 * 2 * 4 * kThreads);
  EXPECT_EQ(launch(write_places_kernel, {dim3(3, 2, 4), kThreads, nullptr}, &places), cudaSuccess);
  EXPECT_THAT(places, testing::Each(1));
}

// Turns the block around: thread i gets what thread kThreads - 1 - i brought.
template <bool kHasBarrier>
__global__ void turn_around_kernel(float* values) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = values[threadIdx.x];
  if constexpr (kHasBarrier) __syncthreads();
  values[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

std::vector<float> counted_from(uint64_t first) {
  std::vector<float> values(kThreads);
  std::iota(values.begin(), values.end(), static_cast<float>(first));
  return values;
}

TEST(CudaOnCpu, a_missing_barrier_shows) {
  for (const uint64_t seed : {1, 2, 3}) {
    draw_order_from(seed);
    const std::vector<float> in_order = counted_from(seed);
    std::vector<float> values = in_order;
    EXPECT_EQ(launch(turn_around_kernel<true>, {1, kThreads, nullptr}, values.data()), cudaSuccess);
    EXPECT_TRUE(std::equal(values.begin(), values.end(), in_order.rbegin()));
    values = in_order;
    EXPECT_EQ(launch(turn_around_kernel<false>, {1, kThreads, nullptr}, values.data()), cudaSuccess);
    EXPECT_FALSE(std::equal(values.begin(), values.end(), in_order.rbegin()));
  }
}

__global__ void note_order_kernel(std::vector<unsigned>* order) {
  order->push_back(blockIdx.x * blockDim.x + threadIdx.x);
  __syncthreads();
  order->push_back(blockIdx.x * blockDim.x + threadIdx.x);
}

TEST(CudaOnCpu, the_seed_chooses_the_order) {
  const auto order_from = [](uint64_t seed) {
    std::vector<unsigned> order;
    draw_order_from(seed);
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(launch(note_order_kernel, {2, kThreads, nullptr}, &order), cudaSuccess);
    }
    return order;
  };
  const std::vector<unsigned> order = order_from(5);
  EXPECT_EQ(order_from(5), order);
  EXPECT_NE(order_from(6), order);
  std::set<std::vector<unsigned>> turns;  // the order differs from barrier to barrier, block to block, launch to launch
  for (auto it = order.begin(); it != order.end(); it += kThreads) {
    std::vector<unsigned> turn(it, it + kThreads);
    for (unsigned& thread : turn) thread %= kThreads;
    turns.insert(turn);
  }
  EXPECT_EQ(turns.size(), 8U);
}

__global__ void forgetful_kernel() {
  if (threadIdx.x == 7) return;
  __syncthreads();
}

__global__ void divided_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void half_warp_kernel() {
  if (threadIdx.x % 32 < 16) __shfl_down_sync(0xFFFFFFFF, 1.0F, 1);
}

__global__ void narrow_kernel() {
  if (threadIdx.x < 16) __shfl_down_sync(0xFFFF, 1.0F, 8);
}

__global__ void whole_warp_kernel() { __shfl_down_sync(0xFFFFFFFF, 1.0F, 1); }

TEST(CudaOnCpu, threads_that_wait_forever_are_named) {
  EXPECT_THAT(
      [] {
        launch(forgetful_kernel, {1, kThreads, nullptr});
      },
      ThrowsMessage<std::runtime_error>(AllOf(
          HasSubstr("launched at thread_block_test.cpp:"), HasSubstr("\n  1 threads have ended"),
          HasSubstr("\n  95 threads wait for their block at thread_block_test.cpp:"), HasSubstr("forgetful_kernel"))));
  EXPECT_THAT(
      [] {
        launch(divided_kernel, {1, kThreads, nullptr});
      },
      ThrowsMessage<std::runtime_error>(AllOf(HasSubstr("32 threads wait"), HasSubstr("64 threads wait"))));
  EXPECT_THAT(
      [] {
        launch(half_warp_kernel, {1, kThreads, nullptr});
      },
      ThrowsMessage<std::runtime_error>(HasSubstr("48 threads wait for lanes of their warp")));
  EXPECT_THAT(
      [] {
        launch(whole_warp_kernel, {1, 40, nullptr});
      },
      ThrowsMessage<std::runtime_error>(HasSubstr("8 threads wait for lanes of their warp")));
  EXPECT_THAT(
      [] {
        launch(narrow_kernel, {1, 32, nullptr});
      },
      ThrowsMessage<std::runtime_error>(HasSubstr("the mask leaves out the lane that is read")));
  std::vector<float> values = counted_from(0);  // and nothing is left of them
  EXPECT_EQ(launch(turn_around_kernel<true>, {1, kThreads, nullptr}, values.data()), cudaSuccess);
  EXPECT_EQ(values[0], kThreads - 1);
}

__global__ void shuffle_kernel(double* down) {
  down[threadIdx.x] = __shfl_down_sync(0xFFFFFFFF, static_cast<double>(threadIdx.x), 8);
}

TEST(CudaOnCpu, lanes_exchange_values_within_their_warp) {
  std::vector<double> down(64);
  EXPECT_EQ(launch(shuffle_kernel, {1, 64, nullptr}, down.data()), cudaSuccess);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(down[i], i % 32 < 24 ? i + 8 : i);
}

TEST(CudaOnCpu, sizes_that_a_gpu_refuses_are_refused) {
  EXPECT_EQ(launch(whole_warp_kernel, {0, 32, nullptr}), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(whole_warp_kernel, {dim3(1, 65536), 32, nullptr}), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(whole_warp_kernel, {1, 0, nullptr}), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(whole_warp_kernel, {1, 1056, nullptr}), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(whole_warp_kernel, {1, 32, nullptr, 164 * 1024}), cudaErrorInvalidValue);
  EXPECT_EQ(launch(whole_warp_kernel, {1, 1024, nullptr, 163 * 1024}), cudaSuccess);
}

__global__ void read_unwritten_kernel(float* values) {
  values[threadIdx.x] = static_cast<const float*>(cuda::dynamic_shared_memory())[threadIdx.x];
  static_cast<float*>(cuda::dynamic_shared_memory())[threadIdx.x] = 1;
}

TEST(CudaOnCpu, dynamic_shared_memory_is_nan_until_it_is_written) {
  std::vector<float> values(32);
  EXPECT_EQ(launch(read_unwritten_kernel, {2, 32, nullptr, 128}, values.data()), cudaSuccess);
  EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](float x) { return std::isnan(x); }));
}

}  // namespace
}  // namespace titer::cuda_on_cpu
