// From the final hidden states of a step to the tokens that it takes, and their log-probabilities.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include <titer/core/generate.h>

#include "token_sampler.h"

namespace titer {

/// One row of a step.
struct Draw {
  uint64_t stream = 0;   ///< of random numbers
  int64_t position = 0;  ///< of the token in its sequence
  bool may_end = true;   ///< with an end-of-sequence token
};

struct ChosenTokens {
  std::vector<int64_t> ids;
  std::vector<double> log_probs;  ///< under the softmax of the logits, whatever is done to them
};

class TokenChoice {
 public:
  /// @throws ValueError if min_new_tokens asks for tokens that end nothing, and the vocabulary has none
  TokenChoice(const CausalLM& model, const GenerateOptions& options);

  /// @param hidden  [n, d]
  /// @param draws   n
  /// @throws ValueError if logits are not finite
  ChosenTokens choose(const at::Tensor& hidden, const std::vector<Draw>& draws);

 private:
  ChosenTokens likeliest(const at::Tensor& hidden) const;
  ChosenTokens choose_by_logits(at::Tensor logits, const std::vector<Draw>& draws);
  int64_t sample(const at::Tensor& logits, const Draw& draw);

  const CausalLM& model_;
  double temperature_;
  uint64_t seed_;
  TokenSampler sampler_;
  at::Tensor ends_;  ///< ids of end-of-sequence tokens
};

}  // namespace titer
