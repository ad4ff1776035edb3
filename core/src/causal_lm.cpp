#include <titer/core/causal_lm.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>

#include "attention.h"
#include "decoder.h"
#include "embedding.h"
#include "fnv1a.h"
#include "pass_guard.h"
#include "weight_reader.h"

namespace titer {

CausalLM::CausalLM(ModelConfig config, const WeightSource& source) : config_(std::move(config)) {
  const auto frozen = [&](const std::string& name) {
    const at::Tensor tensor = source(name);
    return tensor.defined() ? tensor.detach() : tensor;
  };
  weights_ = read_weights(config_, frozen, parameters_);
}

int64_t CausalLM::weight_bytes() const {
  int64_t total = 0;
  for (const auto& [name, tensor] : parameters_) total += static_cast<int64_t>(tensor.nbytes());
  return total;
}

int64_t CausalLM::num_parameters() const {
  int64_t total = 0;
  for (const auto& [name, tensor] : parameters_) total += tensor.numel();
  return total;
}

at::Tensor CausalLM::forward(const at::Tensor& ids) const {
  const PassGuard guard(/*gradients=*/false);
  check_ids(config_, ids, "model");
  TORCH_CHECK_VALUE(ids.dim() == 2 && ids.size(1) > 0, "[model] ids must have shape [B, L] with L at least 1, got ",
                    ids.sizes());
  const int64_t batch = ids.size(0);
  const int64_t length = ids.size(1);
  check_length(config_, length, "model");
  if (batch == 0) return at::empty({0, length, config_.vocab_size}, weights_.embedding.options());
  const at::Tensor positions = at::arange(length, ids.options().device(device())).repeat({batch});
  SequenceAttention attention(config_, /*cache=*/nullptr, batch, /*cached=*/0, /*store=*/0);
  const at::Tensor hidden =
      decode(*this, embed(*this, ids.to(device()).reshape({-1}), positions),
             make_rotaries(config_, positions, length, dtype()), attention, /*workspace=*/nullptr);
  check_hidden_finite(hidden);
  return logits(*this, hidden).view({batch, length, config_.vocab_size});
}

std::string CausalLM::fingerprint() const {
  constexpr int64_t kSample = 256;  // elements per parameter, evenly spaced
  uint64_t hash = kFnv1aStart;
  const auto add = [&](const void* data, size_t bytes) {
    const auto* byte = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < bytes; ++i) hash = fnv1a(hash, byte[i]);
  };
  for (const auto& [name, tensor] : parameters_) {
    add(tensor.sizes().data(), tensor.sizes().size() * sizeof(int64_t));
    const at::Tensor flat = tensor.reshape({-1});
    const int64_t step = std::max<int64_t>(1, flat.numel() / kSample);
    const at::Tensor sample = flat.slice(0, 0, std::nullopt, step).to(at::kCPU).contiguous();
    add(sample.const_data_ptr(), sample.nbytes());
  }
  std::array<char, 17> digits{};
  std::snprintf(digits.data(), digits.size(), "%016" PRIx64, hash);
  return config_.family + " " + c10::toString(dtype()) + " " + digits.data();
}

void CausalLM::check_finite() const {
  const PassGuard guard(/*gradients=*/false);
  for (const auto& [name, tensor] : parameters_)
    TORCH_CHECK_VALUE(at::isfinite(tensor).all().item<bool>(), "[load_model] weight '", name,
                      "' holds an infinity or NaN");
}

}  // namespace titer
