// What a fine-tuning trains: the adapters of K runs on a frozen model, or all weights of one run.
#pragma once

#include <titer/core/causal_lm.h>
#include <titer/core/finetune.h>

#include "training/run_parameters.h"
#include "training/training_batch.h"

namespace titer {

class Trainable {
 public:
  virtual ~Trainable() = default;

  virtual const RunParameters& parameters() const = 0;

  /// What a pass over the batch computes with, and sends gradients through to the parameters. Valid as long as both.
  virtual ModelWeights weights(const TrainingBatch& batch) const = 0;

  /// Floating-point operations of a pass over the batch, forward and back.
  virtual double flops(const TrainingBatch& batch) const = 0;

  /// Copies what a run has learned.
  virtual void write_result(int64_t run, FinetuneResult& result) const = 0;
};

/// Of the numbers that are trained: float32, or float64 where the model is.
inline at::TensorOptions parameter_options(const CausalLM& model) {
  return at::TensorOptions().device(model.device()).dtype(model.dtype() == at::kDouble ? at::kDouble : at::kFloat);
}

}  // namespace titer
