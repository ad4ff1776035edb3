#include "attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

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
  const bool windowed = config_.sliding_window && *config_.sliding_window < cached_ + rows;
  if (!mask_.defined() && (cached_ > 0 || windowed)) {
    const at::Tensor query_position = at::arange(cached_, cached_ + rows, k.options().dtype(at::kLong)).unsqueeze(1);
    const at::Tensor key_position = at::arange(0, cached_ + rows, k.options().dtype(at::kLong)).unsqueeze(0);
    at::Tensor hidden = key_position.gt(query_position);
    if (windowed) hidden.logical_or_(key_position.le(query_position - *config_.sliding_window));
    mask_ = at::zeros(hidden.sizes(), k.options().requires_grad(false))
                .masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  }
  const at::Tensor out = at::scaled_dot_product_attention(
      queries, keys, values, mask_.defined() ? std::make_optional(mask_) : std::nullopt, /*dropout_p=*/0.0,
      /*is_causal=*/!mask_.defined(), 1.0 / std::sqrt(static_cast<double>(config_.head_dim)),
      /*enable_gqa=*/config_.num_heads != config_.num_kv_heads);
  return out.transpose(1, 2).reshape({batch_ * rows, -1});
}

std::pair<at::Tensor, at::Tensor> partial_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                    const at::Tensor& mask, double scale) {
  if (q.is_cpu()) {
    auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        q, k, v, /*dropout_p=*/0.0, /*is_causal=*/false,
        mask.defined() ? std::make_optional(mask.unsqueeze(0).unsqueeze(0)) : std::nullopt, scale);
    return {out, lse};
  }
  at::Tensor scores = at::matmul(q, k.transpose(-2, -1)).to(at::kFloat).mul_(scale);
  if (mask.defined()) scores.add_(mask);
  const at::Tensor lse = at::logsumexp(scores, -1);
  return {at::matmul(at::softmax(scores, -1).to(v.scalar_type()), v), lse};
}

}  // namespace titer
