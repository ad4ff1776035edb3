// The one way that kernels are started. tests/cpp/cuda_on_cpu has a header of the same name that runs them on the CPU.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

namespace titer::cuda {

struct Grid {
  dim3 blocks;
  unsigned threads;  ///< of a block
  cudaStream_t stream;
  size_t shared_bytes = 0;  ///< of dynamic_shared_memory(), for each block
};

/// Returns what is wrong with the launch; the kernel may still be running.
template <typename... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), const Grid& grid, std::type_identity_t<Parameters>... arguments) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (grid.shared_bytes > kWithoutAsking) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<grid.blocks, grid.threads, grid.shared_bytes, grid.stream>>>(arguments...);
  return cudaGetLastError();
}

/// What the launch asked for, aligned to 16 bytes.
__device__ inline void* dynamic_shared_memory() {
  extern __shared__ uint4 memory[];
  return memory;
}

}  // namespace titer::cuda
