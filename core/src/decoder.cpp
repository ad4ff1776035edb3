// Pre-norm decoder layers with rotary attention and a gated MLP (Llama, arXiv 2302.13971).
#include "decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>

#include <cmath>

namespace titer {
namespace {

at::Tensor linear(const at::Tensor& x, const LinearWeights& w, Workspace* workspace, std::string_view purpose) {
  if (workspace == nullptr) return at::linear(x, w.weight, w.bias);
  at::Tensor out = workspace->take(purpose, {x.size(0), w.weight.size(0)}, x.options());
  if (w.bias.defined()) return at::addmm_out(out, w.bias, x, w.weight.t());
  return at::mm_out(out, x, w.weight.t());
}

/// residual + linear(x); in place where no gradient is wanted, so that the GEMM itself does the addition.
at::Tensor add_linear(at::Tensor residual, const at::Tensor& x, const LinearWeights& w, Workspace* workspace) {
  if (workspace == nullptr) return residual + at::linear(x, w.weight, w.bias);
  residual.addmm_(x, w.weight.t());
  return w.bias.defined() ? residual.add_(w.bias) : residual;
}

/// RMSNorm (arXiv 1910.07467), normalised in float32, rounded, then scaled, in the order of transformers.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, Workspace* workspace) {
  if (workspace == nullptr) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
    return (wide * scale).to(x.scalar_type()) * weight;
  }
  at::Tensor wide = workspace->take("norm_wide", x.sizes(), x.options().dtype(at::kFloat));
  at::mul_out(wide, x, x);
  const at::Tensor scale = wide.mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
  at::Tensor out = workspace->take("norm", x.sizes(), x.options());
  if (x.scalar_type() == at::kFloat) return at::mul_out(out, x, scale).mul_(weight);
  return out.copy_(wide.copy_(x).mul_(scale)).mul_(weight);
}

at::Tensor gated_mlp(const at::Tensor& x, const LayerWeights& w, Workspace* workspace) {
  at::Tensor gate = linear(x, w.gate, workspace, "gate");
  const at::Tensor up = linear(x, w.up, workspace, "up");
  if (workspace == nullptr) return at::silu(gate) * up;
  return at::silu_(gate).mul_(up);
}

at::Tensor select_rows(const at::Tensor& x, const at::Tensor& rows, Workspace* workspace, std::string_view purpose) {
  if (workspace == nullptr) return x.index_select(0, rows);
  at::Tensor out = workspace->take(purpose, {rows.size(0), x.size(1)}, x.options());
  return at::index_select_out(out, x, 0, rows);
}

}  // namespace

at::Tensor decode(const CausalLM& model, at::Tensor x, const Rotary& rotary, LayerAttention& attention,
                  Workspace* workspace) {
  const ModelConfig& config = model.config();
  const int64_t kv_heads = config.num_kv_heads;
  const int64_t group = config.num_heads / kv_heads;
  const at::Tensor output_rows = attention.output_rows();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerWeights& w = model.weights().layers[static_cast<size_t>(i)];
    at::Tensor h = rms_norm(x, w.attention_norm, config.rms_norm_eps, workspace);
    at::Tensor k = linear(h, w.k, workspace, "k").view({-1, kv_heads, config.head_dim});
    const at::Tensor v = linear(h, w.v, workspace, "v").view({-1, kv_heads, config.head_dim});
    at::Tensor rotated_k;
    if (workspace != nullptr) rotated_k = workspace->take("rotated_k", k.sizes(), k.options());
    k = apply_rotary(k, rotary, rotated_k);

    Rotary query_rotary = rotary;
    if (output_rows.defined() && i + 1 == config.num_layers) {
      x = select_rows(x, output_rows, workspace, "last_x");
      h = select_rows(h, output_rows, workspace, "last_h");
      query_rotary = {select_rows(rotary.cos, output_rows, workspace, "last_cos"),
                      select_rows(rotary.sin, output_rows, workspace, "last_sin")};
    }
    at::Tensor q = linear(h, w.q, workspace, "q").view({-1, kv_heads, group, config.head_dim});
    at::Tensor rotated_q;  // laid out [Hkv, N, G, hd], so that all queries of a key head are one matrix
    if (workspace != nullptr)
      rotated_q =
          workspace->take("rotated_q", {kv_heads, q.size(0), group, config.head_dim}, q.options()).transpose(0, 1);
    q = apply_rotary(q, query_rotary, rotated_q);

    x = add_linear(x, attention.attend(i, q, k, v), w.o, workspace);
    h = rms_norm(x, w.mlp_norm, config.rms_norm_eps, workspace);
    x = add_linear(x, gated_mlp(h, w, workspace), w.down, workspace);
  }
  return rms_norm(x, model.weights().final_norm, config.rms_norm_eps, workspace);
}

double decode_linear_flops(const ModelConfig& config, int64_t rows, int64_t output_rows) {
  const auto key_value = static_cast<double>(2 * config.hidden_size * config.num_kv_heads * config.head_dim);
  const double rest = static_cast<double>(config.num_layer_parameters()) - key_value;
  const auto layers = static_cast<double>(config.num_layers);
  return 2.0 * (static_cast<double>(rows) * (layers * key_value + (layers - 1) * rest) +
                static_cast<double>(output_rows) * rest);
}

void check_hidden_finite(const at::Tensor& hidden) {
  const auto [least, greatest] = at::aminmax(hidden);  // both are NaN where anything is, and no copy is made
  TORCH_CHECK_VALUE(std::isfinite(least.item<double>()) && std::isfinite(greatest.item<double>()),
                    "[model] hidden states are not finite: a weight is infinite or NaN, or ", hidden.scalar_type(),
                    " overflows; load with check_finite=True to find the weight");
}

}  // namespace titer
