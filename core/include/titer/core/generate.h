// Text from a model: batched decoding with a key-value cache.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <titer/core/causal_lm.h>
#include <titer/core/options.h>
#include <titer/export.h>

namespace titer {

struct GenerateOptions {
  int64_t max_new_tokens = 64;
  double temperature = 0.0;
  int64_t seed = 0;

  void visit(OptionVisitor& visitor) {
    visitor.option(
        {.name = "max_new_tokens", .unit = "tokens", .doc = "Most tokens to generate per prompt.", .range = {.min = 1}},
        max_new_tokens);
    visitor.option({.name = "temperature",
                    .doc = "Divides the logits before sampling; 0 takes the most likely token.",
                    .range = {.min = 0}},
                   temperature);
    visitor.option({.name = "seed", .doc = "Key of the random draws.", .range = {.min = 0}}, seed);
  }
};

/// Continues every prompt until an end-of-sequence token of the model, `max_new_tokens`, or the end of its context.
///
/// Draws are keyed by (seed, ids of the prompt, how often it came before in the batch, position), so that a prompt gets
/// the same text in any batch. Greedy ties take the lowest id.
///
/// @param prompts  ids, none empty; lengths may differ
/// @param poll     called between decoding steps; what it throws ends the call
/// @return         new ids per prompt, the end-of-sequence token included where it came
/// @throws ValueError for an empty prompt, one longer than the context, or hidden states that are not finite;
///         IndexError for ids outside the vocabulary
TITER_EXPORT std::vector<std::vector<int64_t>> generate(const CausalLM& model,
                                                        const std::vector<std::vector<int64_t>>& prompts,
                                                        const GenerateOptions& options = {},
                                                        const std::function<void()>& poll = {});

}  // namespace titer
