// Text from a model: batched decoding with a key-value cache, greedy or sampled, until each answer ends.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <titer/core/causal_lm.h>
#include <titer/core/options.h>
#include <titer/core/tokenizer.h>
#include <titer/export.h>

namespace titer {

struct GenerateOptions {
  int64_t max_new_tokens = 64;
  int64_t min_new_tokens = 0;
  double temperature = 0.0;
  int64_t top_k = 0;
  double top_p = 1.0;
  std::vector<std::string> stop;
  int64_t seed = 0;

  void visit(OptionVisitor& visitor) {
    visitor.option(
        {.name = "max_new_tokens", .unit = "tokens", .doc = "Most tokens to generate per prompt.", .range = {.min = 1}},
        max_new_tokens);
    visitor.option({.name = "min_new_tokens",
                    .unit = "tokens",
                    .doc = "Tokens that come before an end-of-sequence token may come, or a stop string counts.",
                    .range = {.min = 0}},
                   min_new_tokens);
    visitor.option({.name = "temperature",
                    .doc = "Divides the logits before sampling; 0 takes the most likely token.",
                    .range = {.min = 0}},
                   temperature);
    visitor.option({.name = "top_k",
                    .unit = "tokens",
                    .doc = "Samples among that many of the most likely tokens; 0 among all.",
                    .range = {.min = 0}},
                   top_k);
    visitor.option({.name = "top_p",
                    .doc = "Samples among the fewest of the most likely tokens that have this probability together, "
                           "once the temperature and top_k have changed it; 1 among all.",
                    .range = {.min = 0, .max = 1, .min_exclusive = true}},
                   top_p);
    visitor.option({.name = "stop", .doc = "Texts that end an answer, which is cut before the first of them."}, stop);
    visitor.option({.name = "seed", .doc = "Key of the random draws.", .range = {.min = 0}}, seed);
  }
};

enum class FinishReason : uint8_t {
  kStopToken,   ///< an end-of-sequence token came
  kStopString,  ///< a stop string came
  kLength,      ///< max_new_tokens came
  kContext,     ///< the model's context is full
};

/// "stop_token", "stop_string", "length" or "context".
TITER_EXPORT std::string_view finish_reason_name(FinishReason reason);

/// What a model answers to one prompt.
struct Generation {
  /// Without special tokens, and cut before the stop string that ended it.
  std::string text;
  /// All tokens, with the end-of-sequence token or the one that completed a stop string as the last where that came.
  std::vector<int64_t> ids;
  /// Of each id, natural logarithm of its probability under the model itself: the softmax of its logits before
  /// min_new_tokens, temperature, top_k and top_p change them.
  std::vector<double> log_probs;
  FinishReason finish_reason = FinishReason::kLength;
  std::optional<std::string> stop_string = std::nullopt;  ///< the one that ended it

  friend bool operator==(const Generation&, const Generation&) = default;
};

/// Continues every prompt until an end-of-sequence token of the model, a stop string, `max_new_tokens`, or the end of
/// its context.
///
/// Tokens. Greedy decoding takes the most likely token, of several the one of lowest id, as scoring a target does: by
/// logits that are not rounded to the model's dtype, unless they are capped. Sampling divides the logits by
/// the temperature, keeps the top_k (and what is as likely as the last of them), and of these the nucleus top_p
/// (Holtzman et al. 2020, arXiv:1904.09751; of equally likely tokens at its border those of lowest id), as transformers
/// does, whose choice at that border is arbitrary. Draws are keyed by (seed, ids of the prompt, how often it came
/// before in the batch, position), so that a prompt gets the same text in any batch.
///
/// Stop strings are looked for in the text of the answer alone, as the tokenizer decodes it without special tokens:
/// across tokens, inside them, and in characters whose bytes come in several. The one that is complete first ends the
/// answer; of those that are complete with the same byte, the longest.
///
/// The first min_new_tokens tokens are no end-of-sequence tokens, and complete no stop string that counts; one that
/// they hold stays in the text.
///
/// @param tokenizer  the model's
/// @param prompts    ids, none empty; lengths may differ
/// @param poll       called between decoding steps; what it throws ends the call
/// @throws ValueError for an option out of range, an empty prompt, one longer than the context, or hidden states or
///         logits that are not finite; IndexError for ids outside the vocabulary
TITER_EXPORT std::vector<Generation> generate(const CausalLM& model, const Tokenizer& tokenizer,
                                              const std::vector<std::vector<int64_t>>& prompts,
                                              const GenerateOptions& options = {},
                                              const std::function<void()>& poll = {});

}  // namespace titer
