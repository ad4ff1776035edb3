#include "training/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace titer {
namespace {

/// About U Vᵀ of the singular value decomposition G = U S Vᵀ: five steps of a quintic Newton-Schulz iteration whose
/// singular values end between 0.7 and 1.2.
at::Tensor orthogonalised(const at::Tensor& g) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315, kEpsilon = 1e-7;
  const bool tall = g.size(0) > g.size(1);
  at::Tensor x = tall ? g.t() : g;
  x = x / x.norm().clamp_min(kEpsilon);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    x = kA * x + at::mm(kB * gram + kC * at::mm(gram, gram), x);
  }
  return tall ? x.t() : x;
}

}  // namespace

Optimizer::Optimizer(const RunParameters& parameters, const std::vector<FinetuneOptions>& runs)
    : mean_(at::zeros_like(parameters.values())), mean_square_(at::zeros_like(parameters.values())) {
  for (const FinetuneOptions& options : runs) {
    const auto k = static_cast<int64_t>(runs_.size());
    const auto values = parameters.of_run(parameters.values(), k), mean = parameters.of_run(mean_, k),
               mean_square = parameters.of_run(mean_square_, k);
    Run& run = runs_.emplace_back();
    run.options = options;
    run.values = values;
    run.gradients = parameters.of_run(parameters.gradients(), k);
    for (size_t i = 0; i < values.size(); ++i) {
      const ParameterKind kind = parameters.shapes()[i].kind;
      const bool is_muon = kind == ParameterKind::kMatrix && options.optimizer == FinetuneOptions::Optimizer::kMuon;
      Group& group = is_muon ? run.muon : kind == ParameterKind::kVector ? run.plain : run.decayed;
      group.values.push_back(values[i]);
      group.gradients.push_back(run.gradients[i]);
      group.mean.push_back(mean[i]);
      group.mean_square.push_back(mean_square[i]);
    }
  }
}

double Optimizer::gradient_norm(int64_t run) const {
  return at::stack(at::_foreach_norm(runs_[static_cast<size_t>(run)].gradients)).norm().item<double>();
}

bool Optimizer::is_finite(int64_t run) const {
  const auto largest =
      at::_foreach_norm(runs_[static_cast<size_t>(run)].values, std::numeric_limits<double>::infinity());
  return std::isfinite(at::stack(largest).max().item<double>());
}

void Optimizer::step(int64_t index, int64_t step, double rate, double norm) {
  const Run& run = runs_[static_cast<size_t>(index)];
  const FinetuneOptions& options = run.options;
  const double factor = options.max_grad_norm / (norm + 1e-6);  // as in torch's clip_grad_norm_
  if (options.max_grad_norm > 0 && factor < 1) at::_foreach_mul_(run.gradients, factor);
  muon(run.muon, options, rate);
  adamw(run.decayed, options, step, rate, options.weight_decay);
  adamw(run.plain, options, step, rate, /*weight_decay=*/0);
}

void Optimizer::adamw(const Group& group, const FinetuneOptions& options, int64_t step, double rate,
                      double weight_decay) {
  if (group.values.empty()) return;
  const at::Tensor count = at::full({}, step + 1, group.values.front().options().dtype(at::kFloat));
  at::_fused_adamw_(group.values, group.gradients, group.mean, group.mean_square, {},
                    std::vector<at::Tensor>(group.values.size(), count), rate * options.learning_rate,
                    options.adam_beta1, options.adam_beta2, weight_decay, options.adam_epsilon, /*amsgrad=*/false,
                    /*maximize=*/false);
}

void Optimizer::muon(const Group& group, const FinetuneOptions& options, double rate) {
  const double learning_rate = rate * options.muon_learning_rate;
  for (size_t i = 0; i < group.values.size(); ++i) {
    const at::Tensor &gradient = group.gradients[i], &momentum = group.mean[i];
    momentum.lerp_(gradient, 1 - options.muon_momentum);
    const at::Tensor update = orthogonalised(gradient.lerp(momentum, options.muon_momentum));  // Nesterov's
    const double shape = static_cast<double>(update.size(0)) / static_cast<double>(update.size(1));
    const at::Tensor& value = group.values[i];
    value.mul_(1 - learning_rate * options.weight_decay).sub_(update, learning_rate * std::sqrt(std::max(1.0, shape)));
  }
}

}  // namespace titer
