// K LoRA adapters (arXiv 2106.09685) beside one resident base model. The rows of all runs go through the base's
// products together, and each row meets the adapter of its run.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/core/causal_lm.h>
#include <titer/core/finetune_options.h>

#include <memory>
#include <string>
#include <vector>

#include "linear_modules.h"
#include "training/trainable.h"

namespace titer {

class AdapterBank final : public Trainable {
 public:
  /// First weights as in PEFT: `a` uniform in ±1/sqrt(in), drawn by the run's seed, `b` zero. All runs have the same
  /// target_modules, which exist, and lora_rank, which is no larger than their layers.
  AdapterBank(const CausalLM& model, const std::vector<FinetuneOptions>& runs);

  const RunParameters& parameters() const override { return *parameters_; }
  ModelWeights weights(const TrainingBatch& batch) const override;
  double flops(const TrainingBatch& batch) const override;
  void write_result(int64_t run, FinetuneResult& result) const override;

 private:
  class Product;

  std::string a_of(const LinearModule& module) const { return module.name + ".lora_A"; }
  std::string b_of(const LinearModule& module) const { return module.name + ".lora_B"; }

  const CausalLM& model_;
  std::vector<FinetuneOptions> runs_;
  std::vector<LinearModule> modules_;
  std::string base_;  // weights_sha256 of the model
  std::vector<double> scale_;
  std::unique_ptr<RunParameters> parameters_;
};

}  // namespace titer
