// Causal attention within each of a batch's packed sequences; autograd follows it.
#pragma once

#include "decoder.h"
#include "training/training_batch.h"

namespace titer {

class TrainingAttention final : public LayerAttention {
 public:
  TrainingAttention(const ModelConfig& config, const TrainingBatch& batch);
  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;
  at::Tensor output_rows() const override { return batch_.wanted; }

 private:
  const ModelConfig& config_;
  const TrainingBatch& batch_;
  at::Tensor rows_, nothing_;  // of the items: their rows, and what they see of a prefix
};

}  // namespace titer
