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

KvCache::KvCache(const CausalLM& model, int64_t batch, int64_t capacity) {
  const ModelConfig& config = model.config();
  const std::vector<int64_t> shape{config.num_layers, batch, config.num_kv_heads, capacity, config.head_dim};
  // Not empty: in a batch of different lengths a mask hides what nobody wrote, and 0 * NaN would be NaN.
  k = at::zeros(shape, model.weights().embedding.options());
  v = at::zeros(shape, model.weights().embedding.options());
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
  if (store_ > 0) {
    cache_->k.select(0, layer).narrow(2, cached_, store_).copy_(keys.narrow(2, 0, store_).detach());
    cache_->v.select(0, layer).narrow(2, cached_, store_).copy_(values.narrow(2, 0, store_).detach());
  }
  if (cached_ > 0) {
    keys = at::cat({cache_->k.select(0, layer).narrow(2, 0, cached_), keys}, 2);
    values = at::cat({cache_->v.select(0, layer).narrow(2, 0, cached_), values}, 2);
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

at::Tensor additive_mask(const at::Tensor& hidden, const at::TensorOptions& options) {
  return at::zeros(hidden.sizes(), options.requires_grad(false))
      .masked_fill_(hidden, -std::numeric_limits<double>::infinity());
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                     double scale, std::optional<double> cap) {
  const int64_t group = q.size(1) / k.size(1);
  if (!cap)
    return at::scaled_dot_product_attention(q, k, v, mask.defined() ? std::make_optional(mask) : std::nullopt,
                                            /*dropout_p=*/0.0, /*is_causal=*/!mask.defined(), scale,
                                            /*enable_gqa=*/group != 1);
  const at::Tensor grouped = q.unflatten(1, {k.size(1), group});  // [B, Hkv, G, M, hd]
  const at::Tensor visible = mask.dim() == 4 ? mask.unsqueeze(1) : mask;
  const at::Tensor scores = soft_cap(at::matmul(grouped, k.unsqueeze(2).transpose(-2, -1)) * scale, *cap) + visible;
  const at::Tensor weights = at::softmax(scores, -1, at::kFloat).to(v.scalar_type());
  return at::matmul(weights, v.unsqueeze(2)).flatten(1, 2);
}

}  // namespace titer
