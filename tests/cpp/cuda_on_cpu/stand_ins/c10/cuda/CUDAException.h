// Stands in for torch's header of this name.
#pragma once

#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#define C10_CUDA_CHECK(expression)                                                               \
  do {                                                                                           \
    const cudaError_t error = expression;                                                        \
    TORCH_CHECK(error == cudaSuccess, "CUDA error ", static_cast<int>(error), ": " #expression); \
  } while (false)
