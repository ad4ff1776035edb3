// Attention of the passes: whole sequences after a cached prefix, and the partial attention that lets many candidates
// share one prefix.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>
#include <vector>

#include "decoder.h"

namespace titer {

/// Keys and values of all layers, [layers, B, Hkv, capacity, hd] each, k rotated.
struct KvCache {
  at::Tensor k;
  at::Tensor v;

  KvCache() = default;
  KvCache(const CausalLM& model, int64_t batch, int64_t capacity);
  int64_t capacity() const { return k.size(3); }
};

/// B sequences of n rows each (packed [B * n]) that continue `cached` positions of a cache. Stores the keys and values
/// of the first `store` rows behind them.
class SequenceAttention final : public LayerAttention {
 public:
  SequenceAttention(const ModelConfig& config, KvCache* cache, int64_t batch, int64_t cached, int64_t store);
  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;

 private:
  const ModelConfig& config_;
  KvCache* cache_;  // may be null where nothing is cached and nothing stored
  int64_t batch_, cached_, store_;
  at::Tensor mask_;  // built by the first layer; undefined where plain causality is enough
};

/// softmax(q k^T * scale) v over one part of the keys, with the log-sum-exp of its scores, so that parts over disjoint
/// keys can be merged (merge_attention). Without a gradient.
///
/// @param q     [B, Hkv, M, hd]
/// @param k, v  [B, Hkv, K, hd], K at least 1
/// @param mask  undefined, or [M, K] in q's dtype, added to the scores; a row may be all -inf
/// @return      output [B, Hkv, M, hd] (a row without a visible key holds anything) and log-sum-exp [B, Hkv, M] float32
std::pair<at::Tensor, at::Tensor> partial_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                    const at::Tensor& mask, double scale);

}  // namespace titer
