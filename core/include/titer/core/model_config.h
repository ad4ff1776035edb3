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

/// Rotary position embedding (RoFormer, arXiv 2104.09864) with its length extensions.
struct RopeConfig {
  enum class Type {
    kDefault,
    kLinear,    ///< frequencies divided by `factor`
    kDynamic,   ///< NTK-aware base that grows with the sequence once it passes max_position_embeddings
    kLlama3,    ///< Llama 3.1: low frequencies divided by `factor`, smooth transition, high ones kept
    kLongRope,  ///< arXiv 2402.13753: a divisor per frequency, another one beyond original_max_position_embeddings
  };
  Type type = Type::kDefault;
  double theta = 10000.0;
  int64_t rotary_dim = 0;  ///< leading dimensions of a head that rotate, the others pass
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 0;
  std::vector<double> short_factors, long_factors;  ///< longrope: rotary_dim / 2 each
  double attention_factor = 1.0;                    ///< longrope: cosines and sines are multiplied by it
  bool rotates_in_float32 = false;                  ///< instead of in the model's dtype

  /// Whether the angles of a position depend on the length of its sequence.
  bool depends_on_length() const { return type == Type::kDynamic || type == Type::kLongRope; }
};

enum class Norm {
  kRms,        ///< RMSNorm (arXiv 1910.07467), rounded to the model's dtype before it is scaled
  kRmsWide,    ///< RMSNorm, scaled in float32
  kRmsOffset,  ///< RMSNorm, scaled by 1 + weight in float32
  kLayer,      ///< LayerNorm with a bias (arXiv 1607.06450)
};

enum class QkNorm {
  kNone,
  kHead,        ///< every head of queries and keys is normalised, with one weight [hd]
  kProjection,  ///< all heads together, with a weight of the width of the projection
};

enum class Activation { kSilu, kGelu, kGeluTanh };

/// What differs between the layers of one model.
struct LayerConfig {
  std::optional<int64_t> sliding_window;  ///< a query sees this many positions, itself included
  size_t rope = 0;                        ///< index into ModelConfig::ropes
  double attention_scale = 1.0;           ///< factor of the products of queries and keys
};

struct ModelConfig {
  std::string family;  ///< `model_type` of config.json, for example llama
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  Norm norm = Norm::kRms;
  double norm_eps = 1e-6;
  bool pre_norm = true;            ///< attention and MLP read normalised hidden states
  bool post_norm = false;          ///< what they give is normalised before it is added
  bool parallel_residual = false;  ///< the MLP reads what attention reads, not what attention made of it
  QkNorm qk_norm = QkNorm::kNone;
  Activation activation = Activation::kSilu;
  bool gated_mlp = true;  ///< activation(gate) * up instead of activation(up)
  bool qkv_bias = false;
  bool output_bias = false;  ///< of attention's output projection
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  double embedding_scale = 1.0;              ///< factor of token embeddings
  std::optional<double> attention_soft_cap;  ///< scores x become cap * tanh(x / cap) (arXiv 2408.00118, section 2)
  std::optional<double> logit_soft_cap;      ///< the same for logits
  std::vector<RopeConfig> ropes;             ///< empty: positions are learned embeddings
  std::vector<LayerConfig> layers;
  std::vector<int64_t> eos_token_ids;
  std::string dtype;  ///< as stated by the file ("bfloat16"), empty where it does not say
};

/// @param json    contents of a config.json
/// @param origin  named in messages, usually the path
/// @throws std::invalid_argument naming the key that is missing, malformed, or asks for something unsupported
TITER_EXPORT ModelConfig parse_model_config(std::string_view json, std::string_view origin);

/// config.json of a model folder, with the end-of-sequence ids of generation_config.json where that file exists.
/// @throws std::system_error where the file cannot be read, std::invalid_argument as above
TITER_EXPORT ModelConfig read_model_config(const std::filesystem::path& folder);

}  // namespace titer
