#include "model_families.h"

#include <algorithm>
#include <array>

namespace titer {
namespace {

using Bias = Family::Bias;
using Window = Family::Window;

// clang-format off
constexpr std::array kFamilies = {
    // arXiv 2302.13971; also SmolLM2 and every other model that calls itself llama
    Family{.name = "llama", .attention_bias = Bias::kFlag, .mlp_bias = Bias::kFlag},

    // arXiv 2310.06825
    Family{.name = "mistral", .window = Window::kEveryLayer, .default_max_positions = 131072, .default_kv_heads = 8,
           .default_window = 4096},

    // arXiv 2407.10671
    Family{.name = "qwen2", .attention_bias = Bias::kQkv, .window = Window::kFromLayer, .default_max_positions = 32768,
           .default_kv_heads = 32, .default_window = 4096},

    // arXiv 2505.09388
    Family{.name = "qwen3", .qk_norm = QkNorm::kHead, .attention_bias = Bias::kFlag, .window = Window::kFromLayer,
           .default_max_positions = 32768, .default_kv_heads = 32, .default_head_dim = 128, .default_window = 4096},

    // arXiv 2408.00118
    Family{.name = "gemma2", .norm = Norm::kRmsOffset, .post_norm = true, .attention_bias = Bias::kFlag,
           .window = Window::kPattern, .scales_embeddings = true, .reads_query_scalar = true,
           .reads_attention_cap = true, .reads_logit_cap = true, .activation = "hidden_activation",
           .default_activation = "gelu_pytorch_tanh", .default_max_positions = 8192, .default_kv_heads = 4,
           .default_head_dim = 256, .default_tied = true, .default_window = 4096, .default_window_pattern = 2,
           .default_attention_cap = 50.0, .default_logit_cap = 30.0},

    // arXiv 2503.19786, the models for text
    Family{.name = "gemma3_text", .norm = Norm::kRmsOffset, .post_norm = true, .qk_norm = QkNorm::kHead,
           .attention_bias = Bias::kFlag, .window = Window::kPattern, .scales_embeddings = true,
           .ropes_by_window = true, .reads_query_scalar = true, .reads_logit_cap = true,
           .activation = "hidden_activation", .window_pattern = "sliding_window_pattern",
           .default_activation = "gelu_pytorch_tanh", .default_max_positions = 131072, .default_kv_heads = 4,
           .default_head_dim = 256, .default_tied = true, .default_window = 4096, .default_window_pattern = 6},

    // arXiv 2404.14219; also Phi-3.5 and Phi-4
    Family{.name = "phi3", .window = Window::kEveryLayer, .partial_rotary = true, .default_norm_eps = 1e-5,
           .default_max_positions = 4096},

    // arXiv 2501.00656
    Family{.name = "olmo2", .norm = Norm::kRmsWide, .pre_norm = false, .post_norm = true,
           .qk_norm = QkNorm::kProjection, .attention_bias = Bias::kFlag, .rotates_in_float32 = true,
           .default_norm_eps = 1e-5},

    // Radford et al. 2019
    Family{.name = "gpt2", .norm = Norm::kLayer, .gated_mlp = false, .attention_bias = Bias::kAll,
           .mlp_bias = Bias::kAll, .learned_positions = true, .reads_scale_flags = true, .hidden_size = "n_embd",
           .num_layers = "n_layer", .num_heads = "n_head", .num_kv_heads = "", .max_positions = "n_positions",
           .intermediate_size = "n_inner", .activation = "activation_function", .norm_eps = "layer_norm_epsilon",
           .default_activation = "gelu_new", .default_norm_eps = 1e-5, .default_max_positions = 1024,
           .default_tied = true, .default_width_factor = 4},

    // arXiv 2204.06745; also Pythia
    Family{.name = "gpt_neox", .norm = Norm::kLayer, .gated_mlp = false, .attention_bias = Bias::kFlag,
           .mlp_bias = Bias::kAll, .partial_rotary = true, .reads_parallel = true, .num_kv_heads = "",
           .norm_eps = "layer_norm_eps",
           .rope_theta = "rotary_emb_base", .rotary_factor = "rotary_pct", .default_activation = "gelu",
           .default_norm_eps = 1e-5, .default_attention_bias = true, .default_rotary_factor = 0.25},
};
// clang-format on

}  // namespace

const Family* find_family(std::string_view name) {
  const auto found = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& f) { return f.name == name; });
  return found == kFamilies.end() ? nullptr : &*found;
}

std::string family_names() {
  std::string names;
  for (const Family& family : kFamilies) names += (names.empty() ? "" : ", ") + std::string(family.name);
  return names;
}

}  // namespace titer
