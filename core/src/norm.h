// Normalisation of hidden states, and of queries and keys.
#pragma once

#include <titer/core/causal_lm.h>

#include <string_view>

#include "workspace.h"

namespace titer {

/// Normalises the last dimension of x the way `config.norm` says.
///
/// @param purpose  names the result in the workspace; without a workspace the result is a new tensor that autograd can
///                 follow
at::Tensor normalise(const at::Tensor& x, const NormWeights& weights, const ModelConfig& config, Workspace* workspace,
                     std::string_view purpose);

/// residual + normalise(x), in place of the residual where there is a workspace.
at::Tensor add_normalised(const at::Tensor& residual, const at::Tensor& x, const NormWeights& weights,
                          const ModelConfig& config, Workspace* workspace);

}  // namespace titer
