// Stands in for kernels/src/cuda/launch.cuh: kernels run on the CPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <source_location>
#include <type_traits>

#include "device_functions.h"
#include "thread_block.h"

namespace titer::cuda {

struct Grid {
  dim3 blocks;
  unsigned threads;
  cudaStream_t stream;
  size_t shared_bytes = 0;
  std::source_location where = std::source_location::current();
};

template <typename... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), const Grid& grid, std::type_identity_t<Parameters>... arguments) {
  return cuda_on_cpu::run_grid({grid.blocks, grid.threads, grid.shared_bytes, grid.where},
                               [&] { kernel(arguments...); });
}

inline void* dynamic_shared_memory() { return cuda_on_cpu::shared_memory(); }

}  // namespace titer::cuda
