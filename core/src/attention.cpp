#include "attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "embedding.h"

namespace titer {
namespace {

/// Zero where a key may be seen, -inf where `hidden` says that it may not.
at::Tensor additive_mask(const at::Tensor& hidden, const at::TensorOptions& options) {
  return at::zeros(hidden.sizes(), options.requires_grad(false))
      .masked_fill_(hidden, -std::numeric_limits<double>::infinity());
}

/// softmax(cap(q k^T * scale) + mask) v, where query heads that share a key head are neighbours.
///
/// @param q     [B, H, M, hd]
/// @param k, v  [B, Hkv, K, hd]
/// @param mask  undefined for plain causality (M equals K, no cap), or [M, K] in q's dtype
/// @param cap   scores x become cap * tanh(x / cap)
/// @return      [B, H, M, hd]
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                     double scale, std::optional<double> cap) {
  const int64_t group = q.size(1) / k.size(1);
  if (!cap)
    return at::scaled_dot_product_attention(q, k, v, mask.defined() ? std::make_optional(mask) : std::nullopt,
                                            /*dropout_p=*/0.0, /*is_causal=*/!mask.defined(), scale,
                                            /*enable_gqa=*/group != 1);
  const at::Tensor grouped = q.unflatten(1, {k.size(1), group});  // [B, Hkv, G, M, hd]
  const at::Tensor scores = soft_cap(at::matmul(grouped, k.unsqueeze(2).transpose(-2, -1)) * scale, *cap) + mask;
  const at::Tensor weights = at::softmax(scores, -1, at::kFloat).to(v.scalar_type());
  return at::matmul(weights, v.unsqueeze(2)).flatten(1, 2);
}

}  // namespace

KvCache::KvCache(const CausalLM& model, int64_t batch, int64_t capacity) {
  const ModelConfig& config = model.config();
  const std::vector<int64_t> shape{config.num_layers, batch, capacity, config.num_kv_heads, config.head_dim};
  k = at::empty(shape, model.weights().embedding.options());
  v = at::empty(shape, model.weights().embedding.options());
}

SequenceAttention::SequenceAttention(const ModelConfig& config, KvCache* cache, int64_t batch, int64_t cached,
                                     int64_t store)
    : config_(config), cache_(cache), batch_(batch), cached_(cached), store_(store) {}

at::Tensor SequenceAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t rows = k.size(0) / batch_;
  const auto by_head = [&](const at::Tensor& x) {
    return x.view({batch_, rows, -1, config_.head_dim}).transpose(1, 2);
  };
  const at::Tensor queries = by_head(q.reshape({q.size(0), -1, config_.head_dim}));
  at::Tensor keys = by_head(k);
  at::Tensor values = by_head(v);
  const auto slots = [&](const at::Tensor& x, int64_t first, int64_t count) {
    return x.select(0, layer).narrow(1, first, count).transpose(1, 2);
  };
  if (store_ > 0) {
    slots(cache_->k, cached_, store_).copy_(keys.narrow(2, 0, store_).detach());
    slots(cache_->v, cached_, store_).copy_(values.narrow(2, 0, store_).detach());
  }
  if (cached_ > 0) {
    keys = at::cat({slots(cache_->k, 0, cached_), keys}, 2);
    values = at::cat({slots(cache_->v, 0, cached_), values}, 2);
  }
  const LayerConfig& shape = config_.layers[static_cast<size_t>(layer)];
  const at::Tensor out = attention(queries, keys, values, mask(rows, shape.sliding_window, k.options()),
                                   shape.attention_scale, config_.attention_soft_cap);
  return out.transpose(1, 2).reshape({batch_ * rows, -1});
}

at::Tensor SequenceAttention::mask(int64_t rows, std::optional<int64_t> window, const at::TensorOptions& options) {
  const bool windowed = window && *window < cached_ + rows;
  // A plain causal pass needs none, because the kernel knows it; a soft cap is no kernel's.
  if (cached_ == 0 && !windowed && !config_.attention_soft_cap) return {};
  at::Tensor& mask = masks_[windowed];
  if (!mask.defined()) {
    const at::Tensor query_position = at::arange(cached_, cached_ + rows, options.dtype(at::kLong)).unsqueeze(1);
    const at::Tensor key_position = at::arange(0, cached_ + rows, options.dtype(at::kLong)).unsqueeze(0);
    at::Tensor hidden = key_position.gt(query_position);
    if (windowed) hidden.logical_or_(key_position.le(query_position - *window));
    mask = additive_mask(hidden, options);
  }
  return mask;
}

}  // namespace titer
