// A trained low-rank adapter (LoRA, arXiv 2106.09685): what one fine-tuning run added to a base model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <titer/core/causal_lm.h>
#include <titer/export.h>

namespace titer {

/// What products of the factors are multiplied by: alpha / r, or alpha / sqrt(r) (arXiv 2312.03732).
TITER_EXPORT double lora_scale(double alpha, int64_t rank, bool use_rslora);

struct LoraAdapter {
  /// W becomes W + scale b a.
  struct Factors {
    at::Tensor a;  ///< [r, in] float32
    at::Tensor b;  ///< [out, r] float32
  };

  int64_t rank = 0;
  double alpha = 0;
  double dropout = 0;  ///< of its training
  bool use_rslora = false;
  std::vector<std::string> target_modules;  ///< last parts of the names of `modules`
  std::map<std::string, Factors> modules;   ///< by the layer's name: "model.layers.0.self_attn.q_proj"
  std::string base;                         ///< weights_sha256 of what it was trained on; empty: unknown
  std::string template_hash;                ///< SHA-256 of the chat template of its data; empty: none, or unknown
};

/// The base with the adapter's products added to its weights, computed in float32 and rounded to the base's dtype.
/// Weights that the adapter leaves alone are shared.
///
/// @throws ValueError if the adapter was trained on another base, or a layer is unknown or of another size
TITER_EXPORT std::shared_ptr<const CausalLM> merge(const CausalLM& base, const LoraAdapter& adapter);

/// Writes the folder that PEFT loads: adapter_model.safetensors, which also names base and template, then
/// adapter_config.json. Each file is complete or absent; others in the folder stay.
///
/// @param base_name  `base_model_name_or_path` of the configuration; may be empty
/// @throws std::system_error
TITER_EXPORT void save_lora_adapter(const LoraAdapter& adapter, const std::filesystem::path& folder,
                                    const std::string& base_name = "");

/// Reads a folder that this or PEFT wrote. Only plain LoRA of linear layers is taken: no trained biases, DoRA, ranks
/// that differ between layers, or whole layers saved beside it.
///
/// @throws std::invalid_argument, std::system_error, ValueError: what is wrong, with the file's path
TITER_EXPORT LoraAdapter load_lora_adapter(const std::filesystem::path& folder);

}  // namespace titer
