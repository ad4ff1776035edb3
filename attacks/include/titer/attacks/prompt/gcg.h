// Greedy Coordinate Gradient: Zou, Wang, Carlini, Nasr, Kolter, Fredrikson, "Universal and Transferable Adversarial
// Attacks on Aligned Language Models", arXiv 2307.15043, algorithm 1, for one prompt. With the options of nanoGCG
// 0.3.0, the margin loss of PAL (arXiv 2402.09674) and the gradient momentum of MAC (arXiv 2405.01229).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <titer/attacks/prompt_attack.h>
#include <titer/core/options.h>
#include <titer/core/target_loss.h>
#include <titer/export.h>

namespace titer {

struct GcgOptions {
  int64_t num_steps = 250;
  int64_t search_width = 512;
  std::optional<int64_t> batch_size;
  int64_t topk = 256;
  int64_t n_replace = 1;
  int64_t buffer_size = 0;
  TargetObjective::Kind loss = TargetObjective::Kind::kCrossEntropy;
  double mellowmax_alpha = 1.0;
  double cw_margin = 1e-3;
  double momentum = 0.0;
  bool stratified_positions = false;
  bool early_stop = false;
  bool allow_non_ascii = false;
  bool filter_ids = true;
  std::vector<std::string> optim_str_init;
  int64_t seed = 0;

  static constexpr std::array<std::string_view, 3> kLosses{"cross_entropy", "mellowmax", "carlini_wagner"};

  void visit(OptionVisitor& visitor) {
    visitor.option({.name = "num_steps", .unit = "steps", .doc = "Search steps.", .range = {.min = 0}}, num_steps);
    visitor.option(
        {.name = "search_width",
         .unit = "candidates",
         .doc = "Distinct valid candidates scored per step; a step whose neighbourhood holds fewer scores those.",
         .range = {.min = 1}},
        search_width);
    visitor.option(
        {.name = "batch_size",
         .unit = "candidates",
         .doc = "Most candidates computed at a time: a cap on memory. Losses keep their values up to rounding.",
         .range = {.min = 1}},
        batch_size);
    visitor.option({.name = "topk",
                    .unit = "tokens",
                    .doc = "Replacements considered per position, best by gradient.",
                    .range = {.min = 1}},
                   topk);
    visitor.option(
        {.name = "n_replace", .unit = "tokens", .doc = "Positions changed per candidate.", .range = {.min = 1}},
        n_replace);
    visitor.option(
        {.name = "buffer_size",
         .unit = "slots",
         .doc = "Best slots kept, the best of which is searched next; 0 moves to each step's best candidate, "
                "even to a worse one.",
         .range = {.min = 0}},
        buffer_size);
    visitor.option({.name = "loss", .doc = "What the search minimises.", .choices = kLosses}, loss);
    visitor.option(
        {.name = "mellowmax_alpha", .doc = "Sharpness of mellowmax.", .range = {.min = 0, .min_exclusive = true}},
        mellowmax_alpha);
    visitor.option({.name = "cw_margin",
                    .unit = "logits",
                    .doc = "How far the target must lead before carlini_wagner stops counting it.",
                    .range = {.min = 0}},
                   cw_margin);
    visitor.option(
        {.name = "momentum",
         .doc = "Share of earlier gradients in the one that ranks replacements; 0 uses the present one alone.",
         .range = {.min = 0, .max = 1, .max_exclusive = true}},
        momentum);
    visitor.option({.name = "stratified_positions",
                    .doc = "Change every position equally often, as llm-attacks does, instead of uniformly at random."},
                   stratified_positions);
    visitor.option({.name = "early_stop",
                    .doc = "Stop as soon as greedy decoding of a candidate's rendered prompt starts with the target."},
                   early_stop);
    visitor.option({.name = "allow_non_ascii", .doc = "Allow tokens beyond printable ASCII."}, allow_non_ascii);
    visitor.option({.name = "filter_ids",
                    .doc = "Score only candidates whose ids come back from the rendered and tokenised prompt."},
                   filter_ids);
    visitor.option({.name = "optim_str_init",
                    .doc = "Slot texts to start from, all of one token length; empty starts from the prompt's own."},
                   optim_str_init);
    visitor.option({.name = "seed", .doc = "Key of the random draws.", .range = {.min = 0}}, seed);
  }
};

/// GCG on one prompt of one system.
///
/// Each step takes the gradient of the loss with respect to the slot's one-hot encoding, keeps the `topk` most
/// promising tokens per position, draws distinct candidates that change `n_replace` positions, and moves to the one
/// with the lowest loss. Never drawn: added tokens (chat control tokens among them), embedding rows that belong to no
/// token, and candidates that do not survive re-tokenisation in context.
class TITER_EXPORT Gcg final : public PromptAttack {
 public:
  /// @throws std::invalid_argument naming the option that is out of range
  explicit Gcg(GcgOptions options = {});

  const GcgOptions& options() const { return options_; }
  Access needs() const override { return Access::kText | Access::kTargetLoss | Access::kGradients; }

  /// @throws ValueError also if no candidate of a step is valid, or initial texts differ in length
  AttackResult run(const System& system, const Prompt& prompt, const AttackRun& run = {}) const override;

 private:
  GcgOptions options_;
};

}  // namespace titer
