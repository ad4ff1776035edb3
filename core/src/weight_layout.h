// Where the families keep their parameters: names, fusions and orientation, one row of data each.
#pragma once

#include <string_view>

namespace titer {

struct WeightLayout {
  enum class Qkv {
    kSeparate,
    kStacked,  ///< rows of queries, then keys, then values
    kByHead,   ///< head by head: its query, its key, its value
  };

  std::string_view family;

  std::string_view base = "model.";  ///< before all names but the head's; files may leave it out
  std::string_view embedding = "embed_tokens";
  std::string_view positions = "";
  std::string_view layers = "layers.";
  std::string_view final_norm = "norm";
  std::string_view lm_head = "lm_head";

  // Below a layer. Empty names do not exist in the family.
  std::string_view attention_norm = "input_layernorm";
  std::string_view post_attention_norm = "";
  std::string_view mlp_norm = "post_attention_layernorm";
  std::string_view post_mlp_norm = "";
  Qkv qkv_layout = Qkv::kSeparate;
  std::string_view qkv = "";  ///< where they are fused
  std::string_view q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj";
  std::string_view q_norm = "self_attn.q_norm", k_norm = "self_attn.k_norm";
  std::string_view o = "self_attn.o_proj";
  std::string_view gate_up = "";  ///< where the two are fused: rows of the gate, then of the other
  std::string_view gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
  bool transposed = false;  ///< linear weights are stored [in, out]
};

/// The family's row; one that only llama's names describe has llama's.
const WeightLayout& weight_layout(std::string_view family);

}  // namespace titer
