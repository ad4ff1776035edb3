// One step of AdamW (arXiv 1711.05101) or Muon (https://kellerjordan.github.io/posts/muon) on one run's parameters.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/core/finetune_options.h>

#include <cstdint>
#include <vector>

#include "training/run_parameters.h"

namespace titer {

class Optimizer {
 public:
  /// The parameters must outlive it.
  Optimizer(const RunParameters& parameters, const std::vector<FinetuneOptions>& runs);

  /// Euclidean length of a run's gradient.
  double gradient_norm(int64_t run) const;

  /// Whether all of a run's parameters are.
  bool is_finite(int64_t run) const;

  /// Shortens the run's gradient to max_grad_norm, and changes its parameters.
  ///
  /// @param step  of the run, from 0
  /// @param rate  factor of the run's learning rates
  /// @param norm  gradient_norm(run)
  void step(int64_t run, int64_t step, double rate, double norm);

  /// Mean gradients, of Muon's matrices its momentum, and mean squared gradients: [N] each, as RunParameters::values().
  const at::Tensor& mean() const { return mean_; }
  const at::Tensor& mean_square() const { return mean_square_; }

 private:
  /// Views of what has one rule in a run, parameter by parameter.
  struct Group {
    std::vector<at::Tensor> values, gradients, mean, mean_square;
  };
  struct Run {
    FinetuneOptions options;
    std::vector<at::Tensor> values, gradients;  // all of them
    Group muon, decayed, plain;                 // plain: AdamW without weight decay
  };

  static void adamw(const Group& group, const FinetuneOptions& options, int64_t step, double rate, double weight_decay);
  static void muon(const Group& group, const FinetuneOptions& options, double rate);

  at::Tensor mean_, mean_square_;
  std::vector<Run> runs_;
};

}  // namespace titer
