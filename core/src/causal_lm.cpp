#include <titer/core/causal_lm.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linear.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include "attention.h"
#include "decoder.h"
#include "pass_guard.h"

namespace titer {

CausalLM::CausalLM(ModelConfig config, const WeightSource& source) : config_(std::move(config)) {
  const auto take = [&](const std::string& name, std::vector<int64_t> shape) {
    const at::Tensor tensor = source(name);
    TORCH_CHECK_VALUE(tensor.defined(), "[load_model] weight '", name, "' is missing");
    TORCH_CHECK_VALUE(tensor.sizes() == at::IntArrayRef(shape), "[load_model] weight '", name, "' must have shape ",
                      at::IntArrayRef(shape), ", got ", tensor.sizes());
    TORCH_CHECK_VALUE(at::isFloatingType(tensor.scalar_type()) && tensor.layout() == at::kStrided,
                      "[load_model] weight '", name, "' must be a dense floating-point tensor, got ",
                      tensor.toString());
    TORCH_CHECK_VALUE(!tensor.is_inference(), "[load_model] weight '", name,
                      "' was made under inference mode, which autograd cannot use; clone it outside");
    if (!parameters_.empty()) {
      const auto& [first_name, first] = parameters_.front();
      TORCH_CHECK_VALUE(tensor.scalar_type() == first.scalar_type() && tensor.device() == first.device(),
                        "[load_model] all weights must share one dtype and device: '", name, "' is ",
                        tensor.scalar_type(), " on ", tensor.device(), ", '", first_name, "' is ", first.scalar_type(),
                        " on ", first.device());
    }
    parameters_.emplace_back(name, tensor.detach());
    return parameters_.back().second;
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    LinearWeights w{take(name + ".weight", {out, in}), {}};
    if (bias) w.bias = take(name + ".bias", {out});
    return w;
  };

  const int64_t d = config_.hidden_size;
  const int64_t heads = config_.num_heads * config_.head_dim;
  const int64_t kv_heads = config_.num_kv_heads * config_.head_dim;
  weights_.embedding = take("model.embed_tokens.weight", {config_.vocab_size, d});
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const std::string attention = prefix + "self_attn.";
    const std::string mlp = prefix + "mlp.";
    LayerWeights layer;
    layer.attention_norm = take(prefix + "input_layernorm.weight", {d});
    layer.q = linear(attention + "q_proj", heads, d, config_.attention_bias);
    layer.k = linear(attention + "k_proj", kv_heads, d, config_.attention_bias);
    layer.v = linear(attention + "v_proj", kv_heads, d, config_.attention_bias);
    layer.o = linear(attention + "o_proj", d, heads, config_.attention_bias);
    layer.mlp_norm = take(prefix + "post_attention_layernorm.weight", {d});
    layer.gate = linear(mlp + "gate_proj", config_.intermediate_size, d, config_.mlp_bias);
    layer.up = linear(mlp + "up_proj", config_.intermediate_size, d, config_.mlp_bias);
    layer.down = linear(mlp + "down_proj", d, config_.intermediate_size, config_.mlp_bias);
    weights_.layers.push_back(std::move(layer));
  }
  weights_.final_norm = take("model.norm.weight", {d});
  weights_.lm_head = config_.tie_word_embeddings ? weights_.embedding : take("lm_head.weight", {config_.vocab_size, d});
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
  const at::Tensor positions = at::arange(length, ids.options().device(device())).repeat({batch});
  SequenceAttention attention(config_, /*cache=*/nullptr, batch, /*cached=*/0, /*store=*/0);
  const at::Tensor x = weights_.embedding.index_select(0, ids.to(device()).reshape({-1}));
  const at::Tensor hidden =
      decode(*this, x, make_rotary(config_, positions, length, dtype()), attention, /*workspace=*/nullptr);
  check_hidden_finite(hidden);
  return at::linear(hidden, weights_.lm_head).view({batch, length, config_.vocab_size});
}

void CausalLM::check_finite() const {
  const PassGuard guard(/*gradients=*/false);
  for (const auto& [name, tensor] : parameters_)
    TORCH_CHECK_VALUE(at::isfinite(tensor).all().item<bool>(), "[load_model] weight '", name,
                      "' holds an infinity or NaN");
}

}  // namespace titer
