// What a decoder-only transformer is made of, as data. Families differ in values of this struct, never in subclasses.
// Read from config.json in the layouts of transformers 4.x (rope_theta, rope_scaling, torch_dtype) and 5.x
// (rope_parameters, dtype).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <titer/export.h>

namespace titer {

/// Rotary position embedding (RoFormer, arXiv 2104.09864) with the length extensions that the llama family uses.
struct RopeConfig {
  enum class Type {
    kDefault,
    kLinear,   ///< frequencies divided by `factor`
    kDynamic,  ///< NTK-aware base that grows with the sequence once it passes max_position_embeddings
    kLlama3,   ///< Llama 3.1: low frequencies divided by `factor`, smooth transition, high ones kept
  };
  Type type = Type::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 0;
};

struct ModelConfig {
  std::string family;  ///< `model_type` of config.json: llama, mistral
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;  ///< q, k, v and o projections
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  RopeConfig rope;
  std::optional<int64_t> sliding_window;  ///< a query sees this many positions, itself included
  std::vector<int64_t> eos_token_ids;
  std::string dtype;  ///< as stated by the file ("bfloat16"), empty where it does not say

  /// Weights outside embeddings that a token passes through, as the model counts them: sum of all linear layers.
  int64_t num_linear_parameters() const { return num_layers * num_layer_parameters(); }
  int64_t num_layer_parameters() const {
    return hidden_size * head_dim * (2 * num_heads + 2 * num_kv_heads) + 3 * hidden_size * intermediate_size;
  }
};

/// @param json    contents of a config.json
/// @param origin  named in messages, usually the path
/// @throws std::invalid_argument naming the key that is missing, malformed, or asks for something unsupported
TITER_EXPORT ModelConfig parse_model_config(std::string_view json, std::string_view origin);

/// config.json of a model folder, with the end-of-sequence ids of generation_config.json where that file exists.
/// @throws std::system_error where the file cannot be read, std::invalid_argument as above
TITER_EXPORT ModelConfig read_model_config(const std::filesystem::path& folder);

}  // namespace titer
