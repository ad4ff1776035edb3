// A Hugging Face folder -> CausalLM. Tensors alias the mapped file, so that several processes share one copy of the
// weights in the page cache.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>
#include <titer/core/causal_lm.h>
#include <titer/core/safetensors.h>
#include <unistd.h>

#include <cstring>

#include "pass_guard.h"

namespace titer {
namespace {

at::ScalarType scalar_type(const StoredTensor& tensor) {
  switch (tensor.dtype) {
    case StoredDtype::kF16:
      return at::kHalf;
    case StoredDtype::kBF16:
      return at::kBFloat16;
    case StoredDtype::kF32:
      return at::kFloat;
    case StoredDtype::kF64:
      return at::kDouble;
    default:
      TORCH_CHECK_VALUE(false, "[load_model] weight '", tensor.name, "' has dtype ", dtype_name(tensor.dtype),
                        ", expected F16, BF16, F32 or F64");
  }
}

at::Tensor tensor_in_file(const StoredTensor& stored) {
  const auto options = at::TensorOptions().dtype(scalar_type(stored));
  if (!stored.is_aligned()) {
    at::Tensor copy = at::empty(stored.shape, options);
    std::memcpy(copy.data_ptr(), stored.data.data(), stored.data.size());
    return copy;
  }
  // The mapping is read-only: weights are frozen, nothing in the library writes to them.
  auto* data = const_cast<std::byte*>(stored.data.data());
  return at::from_blob(
      data, stored.shape, [storage = stored.storage](void*) {}, options);
}

/// Maps the pages now, so that loading and not the first pass pays for reading them.
void populate(const StoredTensor& stored) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(stored.data.data()) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(stored.data.data()) + stored.data.size();
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);  // a hint: older kernels refuse it
}

}  // namespace

std::shared_ptr<const CausalLM> load_model(const std::string& folder, std::optional<at::ScalarType> dtype,
                                           at::Device device, bool check_finite) {
  const PassGuard guard(/*gradients=*/false);
  const ModelConfig config = read_model_config(folder);
  const SafetensorsFolder files(folder);
  const auto source = [&](const std::string& name) -> at::Tensor {
    const StoredTensor* stored = files.find(name);
    if (stored == nullptr) return {};
    populate(*stored);
    at::Tensor tensor = tensor_in_file(*stored);
    return tensor.to(device, dtype.value_or(tensor.scalar_type()));
  };
  try {
    auto model = std::make_shared<const CausalLM>(config, source);
    if (check_finite) model->check_finite();
    return model;
  } catch (const c10::ValueError& error) {  // it names the weight, which is all that is known there
    TORCH_CHECK_VALUE(false, error.what_without_backtrace(), " (", folder, ")");
  }
}

}  // namespace titer
