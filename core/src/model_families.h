// The families of models, one row of data each: what their configurations leave unsaid, and how they name things.
#pragma once

#include <titer/core/model_config.h>

#include <string_view>

namespace titer {

struct Family {
  enum class Bias { kNone, kQkv, kAll, kFlag };                    ///< kFlag: what "attention_bias" or "mlp_bias" says
  enum class Window { kNone, kEveryLayer, kFromLayer, kPattern };  ///< which layers have a sliding window

  std::string_view name;

  // Computation.
  Norm norm = Norm::kRms;
  bool pre_norm = true;
  bool post_norm = false;
  QkNorm qk_norm = QkNorm::kNone;
  bool gated_mlp = true;
  Bias attention_bias = Bias::kNone;
  Bias mlp_bias = Bias::kNone;
  Window window = Window::kNone;
  bool scales_embeddings = false;    ///< by sqrt(hidden_size)
  bool learned_positions = false;    ///< instead of rotary ones
  bool partial_rotary = false;       ///< a part of a head may rotate
  bool rotates_in_float32 = false;   ///< instead of in the model's dtype
  bool ropes_by_window = false;      ///< layers with a sliding window rotate by a base of their own
  bool reads_query_scalar = false;   ///< attention scale from "query_pre_attn_scalar"
  bool reads_scale_flags = false;    ///< "scale_attn_weights", "scale_attn_by_inverse_layer_idx"
  bool reads_parallel = false;       ///< "use_parallel_residual"
  bool reads_attention_cap = false;  ///< "attn_logit_softcapping"
  bool reads_logit_cap = false;      ///< "final_logit_softcapping"

  // Names of keys.
  std::string_view hidden_size = "hidden_size";
  std::string_view num_layers = "num_hidden_layers";
  std::string_view num_heads = "num_attention_heads";
  std::string_view num_kv_heads = "num_key_value_heads";  ///< empty: as many as heads
  std::string_view max_positions = "max_position_embeddings";
  std::string_view intermediate_size = "intermediate_size";
  std::string_view activation = "hidden_act";
  std::string_view norm_eps = "rms_norm_eps";
  std::string_view window_pattern = "";  ///< kPattern: where the file may state it
  std::string_view rope_theta = "rope_theta";
  std::string_view rotary_factor = "partial_rotary_factor";

  // Values where the file does not say; those of transformers.
  std::string_view default_activation = "silu";
  double default_norm_eps = 1e-6;
  int64_t default_max_positions = 2048;
  int64_t default_kv_heads = 0;         ///< 0: as many as heads
  int64_t default_head_dim = 0;         ///< 0: hidden size over heads
  bool default_attention_bias = false;  ///< where the bias is a flag
  bool default_tied = false;
  double default_rotary_factor = 1.0;
  std::optional<int64_t> default_window = std::nullopt;
  int64_t default_window_pattern = 0;  ///< kPattern: every n-th layer has no window
  int64_t default_width_factor = 0;    ///< MLP width over hidden size; 0: it must be stated
  std::optional<double> default_attention_cap = std::nullopt;
  std::optional<double> default_logit_cap = std::nullopt;
};

/// Null where there is none of that name.
const Family* find_family(std::string_view name);

/// "llama, mistral, ..." for messages.
std::string family_names();

}  // namespace titer
