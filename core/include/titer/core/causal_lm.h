// A decoder-only language model: configuration, frozen weights, logits. Immutable once built, so any number of threads
// and sessions share one. Passes that reuse keys and values live in sessions (session.h) and in generate.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <titer/core/model_config.h>
#include <titer/export.h>

namespace titer {

/// What stands beside the weights of a linear layer and adds to its result: adapters in training.
class TITER_EXPORT LinearAdapter {
 public:
  virtual ~LinearAdapter() = default;

  /// @param y  [N, out] contiguous, the layer's result or a sum with it; may be overwritten
  /// @param x  [N, in] what the layer reads
  /// @return   [N, out], y and the adapter's part; follows gradients of y and x
  virtual at::Tensor add_to(const at::Tensor& y, const at::Tensor& x) const = 0;
};

/// y = x W^T + b, with `weight` [out, in] and `bias` [out] or undefined, and what an adapter adds.
struct LinearWeights {
  at::Tensor weight;
  at::Tensor bias;
  std::shared_ptr<const LinearAdapter> adapter = nullptr;
};

/// `weight` and, for LayerNorm, `bias`, as wide as what is normalised; undefined where the family has none there.
struct NormWeights {
  at::Tensor weight;
  at::Tensor bias;
};

struct LayerWeights {
  NormWeights attention_norm, post_attention_norm;  ///< [d]
  LinearWeights q, k, v;                            ///< [H*hd, d], [Hkv*hd, d], [Hkv*hd, d]
  LinearWeights qkv;                                ///< [H*3*hd, d], head by head, instead of q, k and v
  NormWeights q_norm, k_norm;                       ///< [hd], or [H*hd] and [Hkv*hd]
  LinearWeights o;                                  ///< [d, H*hd]
  NormWeights mlp_norm, post_mlp_norm;              ///< [d]
  LinearWeights gate, up;                           ///< [f, d]; gate is undefined where the MLP has none
  LinearWeights down;                               ///< [d, f]
};

/// Views of what the source gave, whatever is fused or transposed there.
struct ModelWeights {
  at::Tensor embedding;  ///< [V, d]
  at::Tensor positions;  ///< [max_position_embeddings, d], where positions are learned
  std::vector<LayerWeights> layers;
  NormWeights final_norm;  ///< [d]
  at::Tensor lm_head;      ///< [V, d]; the embedding itself where the two are tied
};

/// Gives the parameter of a name ("model.layers.0.self_attn.q_proj.weight"), or an undefined tensor.
using WeightSource = std::function<at::Tensor(const std::string& name)>;

class TITER_EXPORT CausalLM {
 public:
  /// Takes detached aliases of the source's tensors: no copy, and the caller's requires_grad flags stay as they are.
  ///
  /// @throws ValueError naming the parameter that is missing, has the wrong shape, differs in dtype or device, or is an
  ///         inference tensor (which autograd could not save)
  CausalLM(ModelConfig config, const WeightSource& source);

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  /// Every distinct parameter, whole, with the name that the source knows it by.
  const std::vector<std::pair<std::string, at::Tensor>>& parameters() const { return parameters_; }
  at::ScalarType dtype() const { return weights_.embedding.scalar_type(); }
  at::Device device() const { return weights_.embedding.device(); }

  /// Bytes of all parameters, tied ones once.
  int64_t weight_bytes() const;
  /// Number of all parameters, tied ones once.
  int64_t num_parameters() const;

  /// A short text that differs between models: family, dtype, and a hash of the shapes and of a sample of every
  /// parameter's values. Not a signature: who wants two models to share it can make them.
  std::string fingerprint() const;

  /// Logits of whole sequences, without caches or gradients.
  ///
  /// @param ids  [B, L] int64 token ids, L at most max_position_embeddings
  /// @return     [B, L, V] in the model's dtype
  /// @throws ValueError for shapes and lengths, IndexError for ids outside the vocabulary, and ValueError where hidden
  ///         states stop being finite
  at::Tensor forward(const at::Tensor& ids) const;

  /// Throws ValueError naming the first parameter that holds an infinity or NaN.
  void check_finite() const;

 private:
  ModelConfig config_;
  ModelWeights weights_;
  std::vector<std::pair<std::string, at::Tensor>> parameters_;
};

/// Loads `config.json` and the safetensors of a Hugging Face folder. Weights are used where the file is mapped; they
/// are copied only where `dtype` or `device` ask for something else than what the file holds.
///
/// @param dtype   undefined (std::nullopt) keeps the dtype of the file
/// @throws std::system_error, std::invalid_argument, ValueError: what is wrong, with the file's path
TITER_EXPORT std::shared_ptr<const CausalLM> load_model(const std::string& folder,
                                                        std::optional<at::ScalarType> dtype = std::nullopt,
                                                        at::Device device = at::kCPU, bool check_finite = false);

}  // namespace titer
