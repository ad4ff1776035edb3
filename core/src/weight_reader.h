// Takes a model's parameters from a source by their names, checks them, and cuts what is fused into views.
#pragma once

#include <titer/core/causal_lm.h>

#include <string>
#include <utility>
#include <vector>

namespace titer {

/// Views follow the gradients of what the source gives.
///
/// @param parameters  every tensor that was taken is appended, whole, with its name
/// @throws ValueError naming the parameter that is missing or does not fit
ModelWeights read_weights(const ModelConfig& config, const WeightSource& source,
                          std::vector<std::pair<std::string, at::Tensor>>& parameters);

}  // namespace titer
