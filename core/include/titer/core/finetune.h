// Supervised fine-tuning on answers: K runs at once that learn low-rank adapters beside one resident base model, or all
// weights, one run after the other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <titer/core/causal_lm.h>
#include <titer/core/cost.h>
#include <titer/core/finetune_options.h>
#include <titer/core/lora_adapter.h>
#include <titer/core/training_data.h>
#include <titer/export.h>

namespace titer {

struct FinetuneSpec {
  FinetuneOptions options;
  TrainingData data;
};

struct FinetuneStep {
  int64_t step = 0;          ///< of the run, from 1
  double loss = 0;           ///< mean over the answers' tokens of the step, nats, before the step
  double learning_rate = 0;  ///< of AdamW in the step
  double grad_norm = 0;      ///< before it was shortened
  int64_t answer_tokens = 0;

  bool operator==(const FinetuneStep&) const = default;
};

struct FinetuneResult {
  enum class Status {
    kRunning,
    kCompleted,
    kStopped,   ///< by the progress callback
    kDiverged,  ///< a loss or gradient was not finite: `message` says when, and what was learned before is here
  };
  Status status = Status::kRunning;
  std::string message;
  std::vector<FinetuneStep> trace;
  std::optional<LoraAdapter> adapter;     ///< of lora
  std::shared_ptr<const CausalLM> model;  ///< of full
};

/// What surrounds a fine-tuning. Nothing in it changes results beyond rounding.
struct FinetuneRun {
  /// Called after every step of every run; false stops all.
  std::function<bool(int64_t run, const FinetuneStep& step, int64_t num_steps)> progress;
  /// Called between blocks of work; what it throws ends the fine-tuning.
  std::function<void()> poll;
  /// Folder for the state of the runs, written now and then, at their end, and when they are interrupted.
  std::filesystem::path checkpoint;
  /// Goes on from there, as if never interrupted: bitwise on the same build, machine and number of threads.
  bool resume = false;
  /// Rows that go through the model at a time: a cap on memory. A longer sequence goes alone.
  int64_t micro_batch_tokens = 1024;
  /// SHA-256 of the chat template that the data were rendered with, which adapters carry; empty: none.
  std::string template_hash;
};

struct Finetuning {
  std::vector<FinetuneResult> runs;  ///< in the order of the specs
  Cost cost;                         ///< queries: sequences; tokens: those that were computed
};

/// Trains every run on its own data, order, seed and rates. Runs of lora that have target_modules and lora_rank in
/// common train together: each product of the base is computed for the rows of all of them at once. A run's first
/// gradients are what they are without the others; so are its random draws. The base model stays as it is.
///
/// The loss is the mean negative log-likelihood of the answers' tokens in a step. A run whose loss or gradient is not
/// finite stops alone.
///
/// @throws std::invalid_argument naming the option that is out of range; ValueError naming run and sequence where data
///     do not fit the model, or a checkpoint is that of another fine-tuning; std::system_error for files
TITER_EXPORT Finetuning finetune(const CausalLM& model, const std::vector<FinetuneSpec>& specs,
                                 const FinetuneRun& run = {});

}  // namespace titer
