// Analytic gradients against central differences, for ops that take and return any number of float64 tensors.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace titer::test {

using Tensors = std::vector<at::Tensor>;

/// Largest |analytic - numeric| over all elements of all inputs, divided by max(1, |numeric|). The outputs are reduced
/// with random weights, so that an error in any of them shows.
///
/// @param function  differentiable map of float64 tensors, smooth within `step` of the inputs
/// @param inputs    contiguous float64 leaves; left unchanged
inline double gradcheck_error(const std::function<Tensors(const Tensors&)>& function, const Tensors& inputs,
                              double step = 1e-6) {
  Tensors leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.detach().clone().requires_grad_());
  const Tensors outputs = function(leaves);
  Tensors weights;
  for (const at::Tensor& output : outputs) weights.push_back(at::randn_like(output.detach()));
  const Tensors analytic =
      torch::autograd::grad(outputs, leaves, weights, /*retain_graph=*/false, /*create_graph=*/false,
                            /*allow_unused=*/true);

  const auto reduced = [&] {
    Tensors detached;
    for (const at::Tensor& leaf : leaves) detached.push_back(leaf.detach());
    const Tensors values = function(detached);
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += (values[i] * weights[i]).sum().item<double>();
    return sum;
  };
  double worst = 0;
  for (size_t i = 0; i < leaves.size(); ++i) {
    double* const x = leaves[i].data_ptr<double>();
    const at::Tensor gradient = analytic[i].defined() ? analytic[i].contiguous() : at::zeros_like(leaves[i]);
    for (int64_t j = 0; j < leaves[i].numel(); ++j) {
      const double original = x[j];
      x[j] = original + step;
      const double above = reduced();
      x[j] = original - step;
      const double below = reduced();
      x[j] = original;
      const double numeric = (above - below) / (2 * step);
      const double error = std::abs(gradient.const_data_ptr<double>()[j] - numeric) / std::max(1.0, std::abs(numeric));
      worst = std::isnan(error) ? error : std::max(worst, error);
      if (std::isnan(worst)) return worst;
    }
  }
  return worst;
}

}  // namespace titer::test
