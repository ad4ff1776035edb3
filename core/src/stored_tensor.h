// Tensors of torch and tensors in safetensors files.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/core/safetensors.h>

#include <string>
#include <string_view>

namespace titer {

/// The tensor where the file is mapped, which it keeps; a copy where the file does not align it.
/// @param where  begins messages
/// @throws ValueError unless its numbers are floating-point ones
at::Tensor tensor_in_file(const StoredTensor& stored, std::string_view where);

/// What a file gets of a contiguous tensor on the CPU, which must outlive it.
StoredTensor stored_tensor(std::string name, const at::Tensor& tensor);

}  // namespace titer
