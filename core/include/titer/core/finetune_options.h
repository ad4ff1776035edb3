// What a fine-tuning run is, but for its data. configs/train/finetune.yaml has the defaults of transformers and PEFT
// beside these.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <titer/core/options.h>

namespace titer {

struct FinetuneOptions {
  enum class Method {
    kLora,  ///< low-rank adapters (arXiv 2106.09685) beside frozen weights
    kFull,  ///< every weight
  };
  enum class Optimizer {
    kAdamW,  ///< arXiv 1711.05101
    kMuon,   ///< for matrices inside the layers and of adapters; AdamW for the rest
  };
  enum class Schedule { kConstant, kLinear, kCosine };

  Method method = Method::kLora;
  std::vector<std::string> target_modules;
  int64_t lora_rank = 16;
  double lora_alpha = 32.0;
  double lora_dropout = 0.0;
  bool use_rslora = false;
  Optimizer optimizer = Optimizer::kAdamW;
  double learning_rate = 2e-4;
  double weight_decay = 0.0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double muon_learning_rate = 0.02;
  double muon_momentum = 0.95;
  Schedule lr_schedule = Schedule::kLinear;
  int64_t warmup_steps = 0;
  double decay_start = 0.0;
  double final_lr_ratio = 0.0;
  double max_grad_norm = 1.0;
  int64_t batch_size = 8;
  int64_t num_epochs = 1;
  std::optional<int64_t> max_steps;
  bool shuffle = true;
  int64_t seed = 0;

  static constexpr std::array<std::string_view, 2> kMethods{"lora", "full"};
  static constexpr std::array<std::string_view, 2> kOptimizers{"adamw", "muon"};
  static constexpr std::array<std::string_view, 3> kSchedules{"constant", "linear", "cosine"};

  void visit(OptionVisitor& visitor) {
    constexpr OptionRange kPositive{.min = 0, .min_exclusive = true};
    constexpr OptionRange kCounted{.min = 1, .max = 4294967295};  // random streams count in 32 bits
    constexpr OptionRange kShare{.min = 0, .max = 1};
    constexpr OptionRange kShareBelow1{.min = 0, .max = 1, .max_exclusive = true};
    visitor.option({.name = "method", .doc = "What is trained.", .choices = kMethods}, method);
    visitor.option(
        {.name = "target_modules",
         .doc = "Linear layers that get an adapter, by the last parts of their names (\"q_proj\"); empty for "
                "all of the layers. Only for lora."},
        target_modules);
    visitor.option(
        {.name = "lora_rank", .doc = "Rank r of adapters. Only for lora, as all of lora_*.", .range = {.min = 1}},
        lora_rank);
    visitor.option({.name = "lora_alpha", .doc = "Adapters are scaled by lora_alpha / r.", .range = kPositive},
                   lora_alpha);
    visitor.option({.name = "lora_dropout",
                    .doc = "Share of an adapter's inputs that are dropped in a step.",
                    .range = kShareBelow1},
                   lora_dropout);
    visitor.option({.name = "use_rslora", .doc = "Scale by lora_alpha / sqrt(r) instead (arXiv 2312.03732)."},
                   use_rslora);
    visitor.option({.name = "optimizer",
                    .doc = "adamw, or muon: that for matrices inside the layers and of adapters, AdamW for the rest.",
                    .choices = kOptimizers},
                   optimizer);
    visitor.option({.name = "learning_rate", .doc = "Largest rate of AdamW.", .range = kPositive}, learning_rate);
    visitor.option({.name = "weight_decay",
                    .doc = "Decoupled weight decay, not of norms and biases; times the rate.",
                    .range = {.min = 0}},
                   weight_decay);
    visitor.option({.name = "adam_beta1", .doc = "Decay of AdamW's mean gradient.", .range = kShareBelow1}, adam_beta1);
    visitor.option({.name = "adam_beta2", .doc = "Decay of AdamW's mean squared gradient.", .range = kShareBelow1},
                   adam_beta2);
    visitor.option({.name = "adam_epsilon", .doc = "Added to AdamW's denominator.", .range = kPositive}, adam_epsilon);
    visitor.option({.name = "muon_learning_rate", .doc = "Largest rate of Muon.", .range = kPositive},
                   muon_learning_rate);
    visitor.option({.name = "muon_momentum", .doc = "Decay of Muon's mean gradient.", .range = kShareBelow1},
                   muon_momentum);
    visitor.option({.name = "lr_schedule", .doc = "How rates go down after warm-up.", .choices = kSchedules},
                   lr_schedule);
    visitor.option({.name = "warmup_steps",
                    .unit = "steps",
                    .doc = "Rates rise from 0 in these; the first step of a warm-up changes nothing.",
                    .range = {.min = 0}},
                   warmup_steps);
    visitor.option({.name = "decay_start",
                    .doc = "Share of all steps before rates go down, warm-up included. Not for constant.",
                    .range = kShareBelow1},
                   decay_start);
    visitor.option(
        {.name = "final_lr_ratio", .doc = "What rates go down to, of the largest. Not for constant.", .range = kShare},
        final_lr_ratio);
    visitor.option({.name = "max_grad_norm",
                    .doc = "Longer gradients of a run are shortened to this; 0 leaves them.",
                    .range = {.min = 0}},
                   max_grad_norm);
    visitor.option({.name = "batch_size", .unit = "sequences", .doc = "Of one step.", .range = kCounted}, batch_size);
    visitor.option({.name = "num_epochs", .unit = "epochs", .doc = "Passes over the data.", .range = kCounted},
                   num_epochs);
    visitor.option({.name = "max_steps",
                    .unit = "steps",
                    .doc = "Steps in all, instead of num_epochs: more than an epoch has go on with the next.",
                    .range = kCounted},
                   max_steps);
    visitor.option({.name = "shuffle", .doc = "Take every epoch in an order of its own."}, shuffle);
    visitor.option(
        {.name = "seed", .doc = "Key of the random draws: order, first weights, dropout.", .range = {.min = 0}}, seed);
  }
};

}  // namespace titer
