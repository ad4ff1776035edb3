// The tests of the operations, with the CUDA backends on the CPU. --gtest_random_seed=N draws another order of the
// threads.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>

#include "backends.h"
#include "thread_block.h"

const bool titer::test::kCudaOnCpu = true;

namespace titer::cuda_on_cpu {
namespace {

/// Every test draws anew, so that it meets the same order when it runs alone.
class OrderOfEachTest final : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo&) override { draw_order_from(seed()); }
  void OnTestEnd(const testing::TestInfo& test) override {
    if (test.result()->Failed()) std::cout << "Order of the threads: --gtest_random_seed=" << seed() << '\n';
  }
  static uint64_t seed() { return static_cast<uint64_t>(GTEST_FLAG_GET(random_seed)); }
};

}  // namespace
}  // namespace titer::cuda_on_cpu

int main(int argc, char** argv) {
  // Left out: what only the CPU backends do, more than 2^31 logits, which take seven minutes here, and gradients that
  // are composed of torch operations.
  GTEST_FLAG_SET(
      filter,
      "-*instruction_set*:*depend_on*threads*:*rows_beyond_two_to_the_31_logits*:SharedPrefixAttention.gradcheck");
  testing::InitGoogleMock(&argc, argv);
  at::set_num_threads(1);  // kernels run on one anyway
  // Tests that run once for each instruction set would repeat themselves.
  hwy::DisableTargets(hwy::SupportedTargets() & ~HWY_STATIC_TARGET);
  testing::UnitTest::GetInstance()->listeners().Append(new titer::cuda_on_cpu::OrderOfEachTest);
  return RUN_ALL_TESTS();
}
