// Attention of whole sequences after a cached prefix.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <vector>

#include "decoder.h"

namespace titer {

/// Keys and values of all layers, [layers, B, capacity, Hkv, hd] each, k rotated.
struct KvCache {
  at::Tensor k;
  at::Tensor v;

  KvCache() = default;
  KvCache(const CausalLM& model, int64_t batch, int64_t capacity);
  int64_t capacity() const { return k.size(2); }
};

/// B sequences of n rows each (packed [B * n]) that continue `cached` positions of a cache. Stores the keys and values
/// of the first `store` rows behind them.
class SequenceAttention final : public LayerAttention {
 public:
  SequenceAttention(const ModelConfig& config, KvCache* cache, int64_t batch, int64_t cached, int64_t store);
  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;

 private:
  at::Tensor mask(int64_t rows, std::optional<int64_t> window, const at::TensorOptions& options);

  const ModelConfig& config_;
  KvCache* cache_;  // may be null where nothing is cached and nothing stored
  int64_t batch_, cached_, store_;
  std::array<at::Tensor, 2> masks_;  // of layers without and with a sliding window, built when first needed
};

}  // namespace titer
