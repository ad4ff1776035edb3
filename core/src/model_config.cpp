// config.json -> ModelConfig. Every key that changes the computation is either understood or refused by name.
#include <titer/core/model_config.h>

#include <titer/core/atomic_file.h>
#include <titer/core/folder_file.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "config_reader.h"
#include "json.h"
#include "model_families.h"
#include "quote.h"
#include "rope_config.h"

namespace titer {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;
constexpr int64_t kMaxLayers = 10'000;

Activation read_activation(const ConfigReader& config, const Family& family) {
  const std::string name = config.text(family.activation, std::string(family.default_activation));
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::kGeluTanh;
  config.fail(family.activation, "is " + quote(name) +
                                     ", which is not supported; supported: silu, swish, gelu, gelu_new, "
                                     "gelu_pytorch_tanh, gelu_fast");
}

void read_sizes(const ConfigReader& config, const Family& family, ModelConfig& out) {
  out.vocab_size = config.size("vocab_size");
  out.hidden_size = config.size(family.hidden_size);
  out.num_layers = config.size(family.num_layers);
  out.num_heads = config.size(family.num_heads);
  out.max_position_embeddings = config.size(family.max_positions, family.default_max_positions);
  if (out.num_layers > kMaxLayers)
    config.fail(family.num_layers, "is " + std::to_string(out.num_layers) + ", more than the " +
                                       std::to_string(kMaxLayers) + " that are supported");
  const bool open_width = family.default_width_factor != 0;
  out.intermediate_size =
      config.size(family.intermediate_size,
                  open_width ? std::optional(family.default_width_factor * out.hidden_size) : std::nullopt);

  const bool kv_unstated = !config.has(family.num_kv_heads) && family.default_kv_heads != 0;
  out.num_kv_heads = config.size(family.num_kv_heads, kv_unstated ? family.default_kv_heads : out.num_heads);
  if (out.num_heads % out.num_kv_heads != 0)
    config.fail(family.num_kv_heads, "must divide num_attention_heads (" + std::to_string(out.num_heads) + "), got " +
                                         std::to_string(out.num_kv_heads));
  const bool head_dim_unstated = config.find("head_dim") == nullptr && family.default_head_dim == 0;
  if (head_dim_unstated && out.hidden_size % out.num_heads != 0)
    config.fail(family.hidden_size, "must be a multiple of " + std::string(family.num_heads) +
                                        " where head_dim is not given, got " + std::to_string(out.hidden_size));
  out.head_dim = config.size("head_dim", head_dim_unstated ? out.hidden_size / out.num_heads : family.default_head_dim);
}

void read_biases(const ConfigReader& config, const Family& family, ModelConfig& out) {
  using Bias = Family::Bias;
  const bool flagged =
      family.attention_bias == Bias::kFlag && config.flag("attention_bias", family.default_attention_bias);
  out.qkv_bias = flagged || family.attention_bias == Bias::kQkv || family.attention_bias == Bias::kAll;
  out.output_bias = flagged || family.attention_bias == Bias::kAll;
  out.mlp_bias = family.mlp_bias == Bias::kAll || (family.mlp_bias == Bias::kFlag && config.flag("mlp_bias", false));
}

/// Which layers have a sliding window: as listed, or else by the family's rule.
std::vector<bool> sliding_layers(const ConfigReader& config, const Family& family, int64_t num_layers) {
  using Window = Family::Window;
  std::vector<bool> out;
  const std::vector<std::string> types = config.texts("layer_types");
  for (const std::string& type : types) {
    if (type != "full_attention" && type != "sliding_attention")
      config.fail("layer_types", "holds " + quote(type) + "; supported: full_attention, sliding_attention");
    out.push_back(type == "sliding_attention");
  }
  if (!types.empty() && static_cast<int64_t>(types.size()) != num_layers)
    config.fail("layer_types", "must have an entry for each of the " + std::to_string(num_layers) + " layers, got " +
                                   std::to_string(types.size()));
  const int64_t first = config.size("max_window_layers", 28, /*least=*/0);
  const int64_t pattern = config.size(family.window_pattern, family.default_window_pattern);
  for (auto i = static_cast<int64_t>(out.size()); i < num_layers; ++i) {
    switch (family.window) {
      case Window::kNone:
        out.push_back(false);
        break;
      case Window::kEveryLayer:
        out.push_back(true);
        break;
      case Window::kFromLayer:
        out.push_back(i >= first);
        break;
      case Window::kPattern:
        out.push_back((i + 1) % pattern != 0);
        break;
    }
  }
  return out;
}

std::optional<int64_t> read_window(const ConfigReader& config, const Family& family) {
  if (family.window == Family::Window::kNone) return std::nullopt;
  if (family.window == Family::Window::kFromLayer && !config.flag("use_sliding_window", false)) return std::nullopt;
  if (!config.has("sliding_window")) return family.default_window;
  if (config.find("sliding_window") == nullptr) return std::nullopt;
  return config.size("sliding_window");
}

double attention_scale(const ConfigReader& config, const Family& family, int64_t head_dim, int64_t layer) {
  if (family.reads_query_scalar) return 1.0 / std::sqrt(config.positive("query_pre_attn_scalar", 256.0));
  double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  if (!family.reads_scale_flags) return scale;
  if (!config.flag("scale_attn_weights", true)) scale = 1.0;
  return config.flag("scale_attn_by_inverse_layer_idx", false) ? scale / static_cast<double>(layer + 1) : scale;
}

void read_layers(const ConfigReader& config, const Family& family, ModelConfig& out) {
  const std::optional<int64_t> window = read_window(config, family);
  const std::vector<bool> slides = sliding_layers(config, family, out.num_layers);
  for (int64_t i = 0; i < out.num_layers; ++i) {
    const bool sliding = slides[static_cast<size_t>(i)];
    if (sliding && family.window == Family::Window::kNone)
      config.fail("layer_types", "asks for sliding windows, which this family does not have");
    out.layers.push_back({.sliding_window = sliding ? window : std::nullopt,
                          .rope = family.ropes_by_window && sliding ? size_t{1} : size_t{0},
                          .attention_scale = attention_scale(config, family, out.head_dim, i)});
  }
}

/// One set of angles for all layers, or two: without a window, and with one.
void read_ropes(const ConfigReader& config, const Family& family, ModelConfig& out) {
  if (family.learned_positions) return;
  RopeContext context{.theta = config.positive(family.rope_theta, family.ropes_by_window ? 1e6 : 1e4),
                      .partial_factor = config.positive(family.rotary_factor, family.default_rotary_factor),
                      .may_be_partial = family.partial_rotary,
                      .head_dim = out.head_dim,
                      .max_position_embeddings = out.max_position_embeddings};
  if (!family.partial_rotary && context.partial_factor != 1)
    config.fail(family.rotary_factor, "must be 1 for this family");
  const char* key = config.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  if (!family.ropes_by_window) {
    out.ropes = {read_rope(config, key, context)};
    out.ropes[0].rotates_in_float32 = family.rotates_in_float32;
    return;
  }
  RopeContext local = context;
  local.theta = config.positive("rope_local_base_freq", 1e4);
  if (key == std::string_view("rope_scaling")) {
    out.ropes = {read_rope(config, key, context), read_rope(config, "", local)};
    return;
  }
  const ConfigReader parameters = config.object(key);
  out.ropes = {read_rope(parameters, "full_attention", context), read_rope(parameters, "sliding_attention", local)};
}

/// What would change the computation in a way that nobody here implements.
void refuse_the_rest(const ConfigReader& config, const Family& family) {
  if (config.find("quantization_config") != nullptr)
    config.fail("quantization_config", "is set, but quantised weights are not supported; save the model unquantised");
  for (const char* key : {"use_bidirectional_attention", "add_cross_attention"})
    if (config.flag(key, false)) config.fail(key, "is true, which is not supported");
  // transformers reads the key for Gemma 3, too, but its attention ignores it.
  if (!family.reads_attention_cap && config.find("attn_logit_softcapping") != nullptr)
    config.fail("attn_logit_softcapping", "is set, which is not supported for this family");
}

json parse_object(std::string_view text, std::string_view origin) {
  json root = parse_json(text, origin);
  if (!root.is_object())
    throw std::invalid_argument("[load_model] expected a JSON object (" + escape_for_message(origin, 1024) + ")");
  return root;
}

std::optional<double> soft_cap(const ConfigReader& config, std::string_view key, std::optional<double> fallback) {
  if (!config.has(key)) return fallback;
  return config.find(key) == nullptr ? std::nullopt : std::optional(config.positive(key));
}

}  // namespace

ModelConfig parse_model_config(std::string_view text, std::string_view origin) {
  const json root = parse_object(text, origin);
  const ConfigReader config(root, origin);

  ModelConfig out;
  out.family = config.text("model_type", "");
  const Family* found = find_family(out.family);
  if (found == nullptr)
    config.fail("model_type", "is " + quote(out.family) + ", which is not supported; supported: " + family_names());
  const Family& family = *found;
  refuse_the_rest(config, family);
  read_sizes(config, family, out);
  read_biases(config, family, out);
  out.norm = family.norm;
  out.norm_eps = config.positive(family.norm_eps, family.default_norm_eps);
  out.pre_norm = family.pre_norm;
  out.post_norm = family.post_norm;
  out.qk_norm = family.qk_norm;
  out.gated_mlp = family.gated_mlp;
  out.activation = read_activation(config, family);
  out.parallel_residual = family.reads_parallel && config.flag("use_parallel_residual", true);
  out.tie_word_embeddings = config.flag("tie_word_embeddings", family.default_tied);
  if (family.scales_embeddings) out.embedding_scale = std::sqrt(static_cast<double>(out.hidden_size));
  if (family.reads_attention_cap)
    out.attention_soft_cap = soft_cap(config, "attn_logit_softcapping", family.default_attention_cap);
  if (family.reads_logit_cap)
    out.logit_soft_cap = soft_cap(config, "final_logit_softcapping", family.default_logit_cap);
  read_ropes(config, family, out);
  read_layers(config, family, out);
  out.eos_token_ids = config.ids("eos_token_id");
  out.dtype = config.text("dtype", config.text("torch_dtype", ""));
  return out;
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder_file(folder, "config.json");
  ModelConfig out = parse_model_config(read_file(path, kMaxConfigBytes), path.string());
  constexpr const char* kGeneration = "generation_config.json";
  if (const auto text = read_folder_file(folder, kGeneration, kMaxConfigBytes)) {
    const std::string origin = (folder / kGeneration).string();
    const json root = parse_object(*text, origin);
    if (auto ids = ConfigReader(root, origin).ids("eos_token_id"); !ids.empty()) out.eos_token_ids = std::move(ids);
  }
  return out;
}

}  // namespace titer
