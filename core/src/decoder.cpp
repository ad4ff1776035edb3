// Attention and MLP with residual connections, arranged the way the model's configuration says.
#include "decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <titer/kernels/gated_activation.h>
#include <titer/kernels/linear.h>
#include <titer/kernels/rope.h>

#include <cmath>

#include "norm.h"

namespace titer {
namespace {

std::optional<at::Tensor> bias_of(const LinearWeights& w) {
  return w.bias.defined() ? std::make_optional(w.bias) : std::nullopt;
}

at::Tensor adapted(const at::Tensor& y, const at::Tensor& x, const LinearWeights& w) {
  return w.adapter == nullptr ? y : w.adapter->add_to(y, x);
}

at::Tensor linear(const at::Tensor& x, const LinearWeights& w, Workspace* workspace, std::string_view purpose) {
  if (workspace == nullptr) return adapted(at::linear(x, w.weight, w.bias), x, w);
  const at::Tensor out = workspace->take(purpose, {x.size(0), w.weight.size(0)}, x.options());
  return adapted(ops::linear_out(out, x, w.weight, bias_of(w), std::nullopt), x, w);
}

/// residual + linear(x); in place where no gradient is wanted.
at::Tensor add_linear(const at::Tensor& residual, const at::Tensor& x, const LinearWeights& w, Workspace* workspace) {
  if (workspace == nullptr) return residual + linear(x, w, workspace, "block");
  if (w.bias.defined()) return residual.add_(linear(x, w, workspace, "block"));  // torch's GEMMs would need a temporary
  return adapted(ops::linear_out(residual, x, w.weight, std::nullopt, residual), x, w);
}

/// residual + norm(linear(x)), where the family normalises what a block gives.
at::Tensor add_block(const at::Tensor& residual, const at::Tensor& x, const LinearWeights& w,
                     const NormWeights& post_norm, const ModelConfig& config, Workspace* workspace) {
  if (!post_norm.weight.defined()) return add_linear(residual, x, w, workspace);
  return add_normalised(residual, linear(x, w, workspace, "block"), post_norm, config, workspace);
}

ops::GateActivation gate_activation(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return ops::GateActivation::kSilu;
    case Activation::kGelu:
      return ops::GateActivation::kGelu;
    default:
      return ops::GateActivation::kGeluTanh;
  }
}

at::Tensor activate(at::Tensor x, Activation activation, bool in_place) {
  if (activation == Activation::kSilu) return in_place ? at::silu_(x) : at::silu(x);
  const char* approximate = activation == Activation::kGelu ? "none" : "tanh";
  return in_place ? at::gelu_(x, approximate) : at::gelu(x, approximate);
}

/// What the last projection of the MLP reads.
at::Tensor mlp(const at::Tensor& x, const LayerWeights& w, const ModelConfig& config, Workspace* workspace) {
  const at::Tensor up = linear(x, w.up, workspace, "up");
  if (!config.gated_mlp) return activate(up, config.activation, workspace != nullptr);
  const at::Tensor gate = linear(x, w.gate, workspace, "gate");
  const ops::GateActivation activation = gate_activation(config.activation);
  return workspace == nullptr ? ops::gated_activation(gate, up, activation)
                              : ops::gated_activation_out(gate, gate, up, activation);
}

at::Tensor select_rows(const at::Tensor& x, const at::Tensor& rows, Workspace* workspace, std::string_view purpose) {
  return workspace == nullptr ? x.index_select(0, rows) : workspace->select_rows(purpose, x, rows);
}

Rotary select_rows(const Rotary& rotary, const at::Tensor& rows, Workspace* workspace) {
  return {select_rows(rotary.cos, rows, workspace, "last_cos"), select_rows(rotary.sin, rows, workspace, "last_sin")};
}

struct Projected {
  at::Tensor q;     // [M or N, Hkv, G, hd]
  at::Tensor k, v;  // [N, Hkv, hd]
};

/// Queries of the wanted rows, keys and values of all, normalised but not rotated.
Projected project(const at::Tensor& h, const at::Tensor& wanted, const LayerWeights& w, const ModelConfig& config,
                  Workspace* workspace) {
  const int64_t kv_heads = config.num_kv_heads;
  const auto finish = [&](const at::Tensor& x, const NormWeights& norm, std::string_view purpose) {
    if (config.qk_norm == QkNorm::kNone) return x;
    const at::Tensor whole = config.qk_norm == QkNorm::kHead ? x.view({-1, config.head_dim}) : x;
    return normalise(whole, norm, config, workspace, purpose);
  };
  Projected out;
  if (w.qkv.weight.defined()) {
    const at::Tensor heads = linear(h, w.qkv, workspace, "qkv").view({-1, kv_heads, 3, config.head_dim});
    out.q = wanted.defined() ? heads.select(2, 0).index_select(0, wanted) : heads.select(2, 0);
    out.q = out.q.unsqueeze(2);
    out.k = heads.select(2, 1);
    out.v = heads.select(2, 2);
    return out;
  }
  const at::Tensor rows = wanted.defined() ? select_rows(h, wanted, workspace, "last_h") : h;
  const at::Tensor q = finish(linear(rows, w.q, workspace, "q"), w.q_norm, "q_norm");
  const at::Tensor k = finish(linear(h, w.k, workspace, "k"), w.k_norm, "k_norm");
  out.q = q.view({rows.size(0), kv_heads, -1, config.head_dim});
  out.k = k.view({h.size(0), kv_heads, config.head_dim});
  out.v = linear(h, w.v, workspace, "v").view({h.size(0), kv_heads, config.head_dim});
  return out;
}

/// In place where no gradient is wanted: nobody reads queries or keys without their positions.
at::Tensor rotate(const at::Tensor& x, const Rotary& rotary, Workspace* workspace) {
  return workspace == nullptr ? ops::rope(x, rotary.cos, rotary.sin) : ops::rope_out(x, x, rotary.cos, rotary.sin);
}

}  // namespace

at::Tensor decode(const Network& network, at::Tensor x, const Rotaries& rotaries, LayerAttention& attention,
                  Workspace* workspace) {
  const ModelConfig& config = network.config;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerWeights& w = network.weights.layers[static_cast<size_t>(i)];
    const bool last = i + 1 == config.num_layers;
    const at::Tensor wanted = last ? attention.output_rows() : at::Tensor();
    at::Tensor h = config.pre_norm ? normalise(x, w.attention_norm, config, workspace, "norm") : x;
    auto [q, k, v] = project(h, wanted, w, config, workspace);
    if (!rotaries.empty()) {
      const Rotary& rotary = rotaries[config.layers[static_cast<size_t>(i)].rope];
      k = rotate(k, rotary, workspace);
      q = rotate(q, wanted.defined() ? select_rows(rotary, wanted, workspace) : rotary, workspace);
    }
    if (wanted.defined()) x = select_rows(x, wanted, workspace, "last_x");
    if (config.parallel_residual) h = normalise(x, w.mlp_norm, config, workspace, "norm");
    x = add_block(x, attention.attend(i, q, k, v), w.o, w.post_attention_norm, config, workspace);
    if (!config.parallel_residual) h = config.pre_norm ? normalise(x, w.mlp_norm, config, workspace, "norm") : x;
    x = add_block(x, mlp(h, w, config, workspace), w.down, w.post_mlp_norm, config, workspace);
  }
  return normalise(x, network.weights.final_norm, config, workspace, "norm");
}

double decode_linear_flops(const Network& network, int64_t rows, int64_t output_rows) {
  const ModelConfig& config = network.config;
  const int64_t q = config.hidden_size * config.num_heads * config.head_dim;  // as many for the output projection
  const int64_t kv = 2 * config.hidden_size * config.num_kv_heads * config.head_dim;
  const int64_t mlp = (config.gated_mlp ? 3 : 2) * config.hidden_size * config.intermediate_size;
  // In the last layer, what all rows need, and what the wanted ones do.
  const bool fused = network.weights.layers.back().qkv.weight.defined();
  const int64_t last_all = fused ? q + kv : kv;
  const int64_t last_wanted = (fused ? 0 : q) + q + mlp;
  return 2.0 *
         (static_cast<double>(rows) * static_cast<double>((config.num_layers - 1) * (2 * q + kv + mlp) + last_all) +
          static_cast<double>(output_rows) * static_cast<double>(last_wanted));
}

void check_hidden_finite(const at::Tensor& hidden) {
  const auto [least, greatest] = at::aminmax(hidden);  // both are NaN where anything is, and no copy is made
  TORCH_CHECK_VALUE(std::isfinite(least.item<double>()) && std::isfinite(greatest.item<double>()),
                    "[model] hidden states are not finite: a weight is infinite or NaN, or ", hidden.scalar_type(),
                    " overflows; load with check_finite=True to find the weight");
}

}  // namespace titer
