// config.json -> ModelConfig. Every key that changes the computation is either understood or refused by name.
#include <titer/core/model_config.h>

#include <titer/core/atomic_file.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "json.h"

namespace titer {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

class ConfigReader {
 public:
  ConfigReader(const json& object, std::string_view origin, std::string prefix = "")
      : object_(object), origin_(origin), prefix_(std::move(prefix)) {}

  [[noreturn]] void fail(std::string_view key, const std::string& message) const {
    throw std::invalid_argument("[load_model] '" + prefix_ + std::string(key) + "' " + message + " (" +
                                std::string(origin_) + ")");
  }

  const json* find(std::string_view key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  /// A positive whole number that fits comfortably: shapes are products of two of them.
  int64_t size(std::string_view key, std::optional<int64_t> fallback = std::nullopt) const {
    const json* value = find(key);
    if (value == nullptr) {
      if (fallback) return *fallback;
      fail(key, "is missing");
    }
    constexpr int64_t kLargest = int64_t{1} << 30;
    if (!value->is_number_integer() || *value < 1 || *value > kLargest)
      fail(key, "must be a whole number from 1 to " + std::to_string(kLargest) + ", got " + value->dump());
    return value->get<int64_t>();
  }

  double positive(std::string_view key, std::optional<double> fallback = std::nullopt) const {
    const json* value = find(key);
    if (value == nullptr) {
      if (fallback) return *fallback;
      fail(key, "is missing");
    }
    if (!value->is_number() || !std::isfinite(value->get<double>()) || value->get<double>() <= 0)
      fail(key, "must be a finite number above 0, got " + value->dump());
    return value->get<double>();
  }

  bool flag(std::string_view key, bool fallback) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) fail(key, "must be true or false, got " + value->dump());
    return value->get<bool>();
  }

  std::string text(std::string_view key, const std::string& fallback) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) fail(key, "must be a string, got " + value->dump());
    return value->get<std::string>();
  }

  std::vector<int64_t> ids(std::string_view key) const {
    const json* value = find(key);
    std::vector<int64_t> out;
    if (value == nullptr) return out;
    const json list = value->is_array() ? *value : json::array({*value});
    for (const json& id : list) {
      if (!id.is_number_integer() || id < 0 || id > std::numeric_limits<int32_t>::max())
        fail(key, "must be a token id or a list of them, got " + value->dump());
      out.push_back(id.get<int64_t>());
    }
    return out;
  }

 private:
  const json& object_;
  std::string_view origin_;
  std::string prefix_;
};

RopeConfig read_rope(const ConfigReader& config, std::string_view origin, int64_t max_position_embeddings) {
  RopeConfig rope;
  rope.theta = config.positive("rope_theta", 10000.0);
  const char* key = config.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const json* parameters = config.find(key);
  if (parameters == nullptr) return rope;
  if (!parameters->is_object()) config.fail(key, "must be an object, got " + parameters->dump());

  const ConfigReader scaling(*parameters, origin, std::string(key) + ".");
  rope.theta = scaling.positive("rope_theta", rope.theta);
  const char* type_key = scaling.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = scaling.text(type_key, "default");
  if (type == "default") return rope;
  if (type == "linear") {
    rope.type = RopeConfig::Type::kLinear;
  } else if (type == "dynamic") {
    rope.type = RopeConfig::Type::kDynamic;
  } else if (type == "llama3") {
    rope.type = RopeConfig::Type::kLlama3;
    rope.low_freq_factor = scaling.positive("low_freq_factor");
    rope.high_freq_factor = scaling.positive("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor)
      scaling.fail("high_freq_factor", "must be larger than low_freq_factor");
    rope.original_max_position_embeddings = scaling.size("original_max_position_embeddings", max_position_embeddings);
  } else {
    scaling.fail(type_key, "is '" + type + "', which is not supported; supported: default, linear, dynamic, llama3");
  }
  rope.factor = scaling.positive("factor");
  if (const json* partial = scaling.find("partial_rotary_factor"); partial != nullptr && *partial != 1.0)
    scaling.fail("partial_rotary_factor", "must be 1 for this family, got " + partial->dump());
  return rope;
}

}  // namespace

ModelConfig parse_model_config(std::string_view text, std::string_view origin) {
  const json root = parse_json(text, origin);
  if (!root.is_object())
    throw std::invalid_argument("[load_model] expected a JSON object (" + std::string(origin) + ")");
  const ConfigReader config(root, origin);

  ModelConfig out;
  out.family = config.text("model_type", "");
  if (out.family != "llama" && out.family != "mistral")
    config.fail("model_type", "is '" + out.family + "', which is not supported; supported: llama, mistral");
  if (config.find("quantization_config") != nullptr)
    config.fail("quantization_config", "is set, but quantised weights are not supported; save the model unquantised");
  if (const std::string act = config.text("hidden_act", "silu"); act != "silu")
    config.fail("hidden_act", "is '" + act + "', which is not supported; supported: silu");

  out.vocab_size = config.size("vocab_size");
  out.hidden_size = config.size("hidden_size");
  out.intermediate_size = config.size("intermediate_size");
  out.num_layers = config.size("num_hidden_layers");
  out.num_heads = config.size("num_attention_heads");
  out.num_kv_heads = config.size("num_key_value_heads", out.family == "mistral" ? 8 : out.num_heads);
  if (out.num_heads % out.num_kv_heads != 0)
    config.fail("num_key_value_heads", "must divide num_attention_heads (" + std::to_string(out.num_heads) + "), got " +
                                           std::to_string(out.num_kv_heads));
  if (config.find("head_dim") == nullptr && out.hidden_size % out.num_heads != 0)
    config.fail("hidden_size", "must be a multiple of num_attention_heads where head_dim is not given, got " +
                                   std::to_string(out.hidden_size));
  out.head_dim = config.size("head_dim", out.hidden_size / out.num_heads);
  if (out.head_dim % 2 != 0)
    config.fail("head_dim", "must be even for rotary embeddings, got " + std::to_string(out.head_dim));
  out.max_position_embeddings = config.size("max_position_embeddings", out.family == "mistral" ? 131072 : 2048);
  out.rms_norm_eps = config.positive("rms_norm_eps", 1e-6);
  out.tie_word_embeddings = config.flag("tie_word_embeddings", false);
  if (out.family == "llama") {
    out.attention_bias = config.flag("attention_bias", false);
    out.mlp_bias = config.flag("mlp_bias", false);
  } else if (const json* window = root.contains("sliding_window") ? &root["sliding_window"] : nullptr) {
    if (!window->is_null()) out.sliding_window = config.size("sliding_window");
  } else {
    out.sliding_window = 4096;  // what transformers assumes where a mistral config does not say
  }
  out.rope = read_rope(config, origin, out.max_position_embeddings);
  out.eos_token_ids = config.ids("eos_token_id");
  out.dtype = config.text("dtype", config.text("torch_dtype", ""));
  return out;
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  ModelConfig out = parse_model_config(read_file(path, kMaxConfigBytes), path.string());
  const std::filesystem::path generation = folder / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    const std::string origin = generation.string();
    const json root = parse_json(read_file(generation, kMaxConfigBytes), origin);
    if (root.is_object())
      if (auto ids = ConfigReader(root, origin).ids("eos_token_id"); !ids.empty()) out.eos_token_ids = std::move(ids);
  }
  return out;
}

}  // namespace titer
