// The linear layers of a model as its files and PEFT know them: names, shapes, and where fused ones went.
#pragma once

#include <titer/core/causal_lm.h>

#include <cstdint>
#include <string>
#include <vector>

namespace titer {

struct LinearModule {
  /// Rows of the module that are one of the layer's products.
  struct Part {
    LinearWeights LayerWeights::*product;
    int64_t first_row;
    int64_t rows;
  };

  std::string name;  ///< without ".weight": "model.layers.0.self_attn.q_proj"
  int64_t layer = 0;
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool transposed = false;  ///< stored [in, out]
  std::vector<Part> parts;
};

/// Of all layers, in their order; without the head.
std::vector<LinearModule> linear_modules(const ModelConfig& config);

/// Those that `targets` name by the last parts of their names, as in PEFT: "q_proj", "self_attn.q_proj". All where
/// targets is empty.
/// @param where  begins messages
/// @throws ValueError naming the target that is no linear layer, and those that there are
std::vector<LinearModule> linear_modules(const ModelConfig& config, const std::vector<std::string>& targets,
                                         const std::string& where);

}  // namespace titer
