// What every operation is tested on: the devices at hand and, on the CPU, each instruction set that Highway compiled.
#pragma once

#include <ATen/Context.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "cpu/highway_targets.h"
//
#include <hwy/highway.h>

namespace titer::test {

inline std::vector<at::Device> devices() {
  std::vector<at::Device> result{at::kCPU};
  if (at::globalContext().hasCUDA()) result.emplace_back(at::kCUDA);
  return result;
}

/// Whether tensors on the CPU meet the CUDA backends, as they do in tests/cpp/cuda_on_cpu. Each executable says it.
extern const bool kCudaOnCpu;

/// Whether tensors on this device meet the backend that is written for CPUs.
inline bool has_cpu_backend(at::Device device) { return device.is_cpu() && !kCudaOnCpu; }

/// Instruction sets of this processor that the kernels are compiled for, best first.
inline std::vector<int64_t> instruction_sets() { return hwy::SupportedAndGeneratedTargets(); }

/// Makes Highway use one instruction set as long as it lives.
class ForcedInstructionSet {
 public:
  explicit ForcedInstructionSet(int64_t target) { use(target); }
  ~ForcedInstructionSet() { use(0); }  // 0: what the processor supports
  ForcedInstructionSet(const ForcedInstructionSet&) = delete;
  ForcedInstructionSet& operator=(const ForcedInstructionSet&) = delete;

 private:
  static void use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

}  // namespace titer::test
