// All weights of a model in training. They are kept in float32 and rounded to the model's dtype in every pass.
#pragma once

#include <map>
#include <string>

#include "training/trainable.h"

namespace titer {

/// One run. The model itself stays as it is.
class FullWeights final : public Trainable {
 public:
  explicit FullWeights(const CausalLM& model);

  const RunParameters& parameters() const override { return *parameters_; }
  ModelWeights weights(const TrainingBatch& batch) const override;
  double flops(const TrainingBatch& batch) const override;
  void write_result(int64_t run, FinetuneResult& result) const override;

 private:
  WeightSource source(bool copies) const;

  const CausalLM& model_;
  std::unique_ptr<RunParameters> parameters_;
};

}  // namespace titer
