// Runs that train together: the loop over their steps.
#pragma once

#include <titer/core/finetune.h>

#include <memory>
#include <vector>

#include "training/data_order.h"
#include "training/finetune_checkpoint.h"
#include "training/optimizer.h"
#include "training/trainable.h"

namespace titer {

class FinetuneGroup {
 public:
  /// @param indices     of the runs in what the caller gave, for progress
  FinetuneGroup(const CausalLM& model, std::vector<FinetuneSpec> specs, std::vector<int64_t> indices,
                const FinetuneRun& run, FinetuneCheckpoint checkpoint);

  /// Trains until every run has ended, and adds what that costs.
  ///
  /// @param stopped  runs that would go on stop at once, as others of the same fine-tuning did; set where the progress
  ///                 callback stops all
  std::vector<FinetuneResult> train(Cost& cost, bool& stopped);

 private:
  struct StepLoss {
    double sum = 0;  // over the tokens of answers, nats
    int64_t tokens = 0;
  };

  std::vector<int64_t> running() const;
  int64_t step_of(int64_t run) const { return static_cast<int64_t>(results_[static_cast<size_t>(run)].trace.size()); }
  bool step(Cost& cost);
  void check_state() const;
  std::vector<BatchItem> items_of(const std::vector<int64_t>& runs);
  void pass(const std::vector<BatchItem>& items, std::vector<StepLoss>& losses, Cost& cost) const;
  void update(int64_t run, const StepLoss& loss);
  void stop();
  void save(bool now);

  const CausalLM& model_;
  std::vector<FinetuneSpec> specs_;
  std::vector<int64_t> indices_;
  const FinetuneRun& run_;
  std::unique_ptr<Trainable> trainable_;
  Optimizer optimizer_;
  std::vector<DataOrder> orders_;
  std::vector<FinetuneResult> results_;
  FinetuneCheckpoint checkpoint_;
  bool is_updating_ = false;  // some parameters are those before a step, some those behind it
};

}  // namespace titer
