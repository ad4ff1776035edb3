#include "stored_tensor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>

#include <array>
#include <cstring>
#include <utility>

namespace titer {
namespace {

constexpr std::array<std::pair<StoredDtype, at::ScalarType>, 4> kDtypes{{{StoredDtype::kF16, at::kHalf},
                                                                         {StoredDtype::kBF16, at::kBFloat16},
                                                                         {StoredDtype::kF32, at::kFloat},
                                                                         {StoredDtype::kF64, at::kDouble}}};

}  // namespace

at::Tensor tensor_in_file(const StoredTensor& stored, std::string_view where) {
  for (const auto& [in_file, dtype] : kDtypes) {
    if (in_file != stored.dtype) continue;
    if (!stored.is_aligned()) {
      at::Tensor copy = at::empty(stored.shape, dtype);
      std::memcpy(copy.data_ptr(), stored.data.data(), stored.data.size());
      return copy;
    }
    // The mapping is read-only: nothing in the library writes to what it loads.
    auto* data = const_cast<std::byte*>(stored.data.data());
    return at::from_blob(
        data, stored.shape, [storage = stored.storage](void*) {}, dtype);
  }
  TORCH_CHECK_VALUE(false, "[", where, "] weight '", stored.name, "' has dtype ", dtype_name(stored.dtype),
                    ", expected F16, BF16, F32 or F64");
}

StoredTensor stored_tensor(std::string name, const at::Tensor& tensor) {
  TORCH_INTERNAL_ASSERT(tensor.is_cpu() && tensor.is_contiguous());
  for (const auto& [in_file, dtype] : kDtypes)
    if (dtype == tensor.scalar_type())
      return {.name = std::move(name),
              .dtype = in_file,
              .shape = tensor.sizes().vec(),
              .data = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()},
              .storage = nullptr};
  TORCH_INTERNAL_ASSERT(false, tensor.scalar_type());
}

}  // namespace titer
