// Torch's header of this name, but implementations for CUDA are registered for tensors on the CPU.
#pragma once
#pragma GCC system_header

#include_next <torch/library.h>

#undef TORCH_LIBRARY_IMPL
#define TORCH_LIBRARY_IMPL(library, key, module) TITER_IMPLEMENT_FOR_##key(library, module)
#define TITER_IMPLEMENT_FOR_CUDA(library, module) _TORCH_LIBRARY_IMPL(library, CPU, module, C10_UID)
