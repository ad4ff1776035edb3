#include "weight_layout.h"

#include <algorithm>
#include <array>

namespace titer {
namespace {

using Qkv = WeightLayout::Qkv;

constexpr WeightLayout kLlama{.family = "llama"};

constexpr WeightLayout with_four_norms(std::string_view family) {
  return {.family = family,
          .post_attention_norm = "post_attention_layernorm",
          .mlp_norm = "pre_feedforward_layernorm",
          .post_mlp_norm = "post_feedforward_layernorm"};
}

constexpr std::array kLayouts = {
    with_four_norms("gemma2"),
    with_four_norms("gemma3_text"),
    WeightLayout{
        .family = "phi3", .qkv_layout = Qkv::kStacked, .qkv = "self_attn.qkv_proj", .gate_up = "mlp.gate_up_proj"},
    WeightLayout{.family = "olmo2",
                 .attention_norm = "",
                 .post_attention_norm = "post_attention_layernorm",
                 .mlp_norm = "",
                 .post_mlp_norm = "post_feedforward_layernorm"},
    WeightLayout{.family = "gpt2",
                 .base = "transformer.",
                 .embedding = "wte",
                 .positions = "wpe",
                 .layers = "h.",
                 .final_norm = "ln_f",
                 .attention_norm = "ln_1",
                 .mlp_norm = "ln_2",
                 .qkv_layout = Qkv::kStacked,
                 .qkv = "attn.c_attn",
                 .o = "attn.c_proj",
                 .up = "mlp.c_fc",
                 .down = "mlp.c_proj",
                 .transposed = true},
    WeightLayout{.family = "gpt_neox",
                 .base = "gpt_neox.",
                 .embedding = "embed_in",
                 .final_norm = "final_layer_norm",
                 .lm_head = "embed_out",
                 .qkv_layout = Qkv::kByHead,
                 .qkv = "attention.query_key_value",
                 .o = "attention.dense",
                 .up = "mlp.dense_h_to_4h",
                 .down = "mlp.dense_4h_to_h"},
};

}  // namespace

const WeightLayout& weight_layout(std::string_view family) {
  const auto found = std::find_if(kLayouts.begin(), kLayouts.end(), [&](const auto& l) { return l.family == family; });
  return found == kLayouts.end() ? kLlama : *found;
}

}  // namespace titer
