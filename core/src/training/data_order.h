// Which sequences a run's steps take.
#pragma once

#include <titer/core/finetune_options.h>

#include <cstdint>
#include <vector>

namespace titer {

class DataOrder {
 public:
  /// @param size  sequences of the run, at least one
  DataOrder(const FinetuneOptions& options, int64_t size);

  int64_t num_steps() const { return num_steps_; }

  /// Of a step, from 0: batch_size of them, fewer where an epoch ends. Quick where steps are asked for in order.
  std::vector<int64_t> sequences(int64_t step);

 private:
  void shuffle(int64_t epoch);

  FinetuneOptions options_;
  int64_t size_, steps_of_epoch_, num_steps_;
  int64_t epoch_ = -1;  // that order_ belongs to
  std::vector<int64_t> order_;
};

}  // namespace titer
