// A Hugging Face folder -> CausalLM. Tensors alias the mapped file, so that several processes share one copy of the
// weights in the page cache.
#include <c10/util/Exception.h>
#include <sys/mman.h>
#include <titer/core/causal_lm.h>
#include <titer/core/safetensors.h>
#include <unistd.h>

#include "pass_guard.h"
#include "stored_tensor.h"

namespace titer {
namespace {

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
    at::Tensor tensor = tensor_in_file(*stored, "load_model");
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
