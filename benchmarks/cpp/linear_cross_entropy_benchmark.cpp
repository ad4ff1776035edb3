// linear_cross_entropy against at::linear + cross_entropy, forward and with the gradient of hidden, which is what an
// attack asks for. benchmarks/python/kernels.py runs it.
// GFLOP/s counts the products of the plain formulation: 2 R d V forward, twice that with the gradient.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linear.h>
#include <benchmark/benchmark.h>
#include <titer/kernels/linear_cross_entropy.h>
#include <torch/csrc/autograd/autograd.h>

#include "linear_cross_entropy_cases.h"
#include "reference/linear_cross_entropy.h"

namespace titer::test {
namespace {

using Losses = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&);

at::Tensor titer_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target) {
  return ops::linear_cross_entropy(hidden, weight, target).loss;
}

at::Tensor torch_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target) {
  return at::cross_entropy_loss(at::linear(hidden, weight), target, {}, /*reduction=*/0);
}

/// Whether the first rows agree with float64. torch rounds its bfloat16 logits, so only a coarse bound fits both.
bool is_correct(Losses losses, const LinearCrossEntropyInputs& inputs) {
  const at::NoGradGuard no_grad;
  const auto first = [](const at::Tensor& x) { return x.narrow(0, 0, 16); };
  const at::Tensor expected = reference::linear_cross_entropy(first(inputs.hidden).to(at::kDouble),
                                                              inputs.weight.to(at::kDouble), first(inputs.target))
                                  .loss;
  return (first(losses(inputs.hidden, inputs.weight, inputs.target)) - expected).abs().max().item<double>() < 0.1;
}

void run(benchmark::State& state, const LinearCrossEntropyCase& c, Losses losses, bool with_gradient) {
  const LinearCrossEntropyInputs inputs = linear_cross_entropy_inputs(c, at::kCPU);
  if (!is_correct(losses, inputs)) return state.SkipWithError("losses differ from float64");
  const at::AutoGradMode grad_mode(with_gradient);
  const at::Tensor hidden = inputs.hidden.requires_grad_(with_gradient);
  for (auto _ : state) {
    at::Tensor result = losses(hidden, inputs.weight, inputs.target);
    if (with_gradient) result = torch::autograd::grad({result.sum()}, {hidden})[0];
    benchmark::DoNotOptimize(result.const_data_ptr());
  }
  const double flops = (with_gradient ? 4.0 : 2.0) * static_cast<double>(c.rows * c.d) * static_cast<double>(c.vocab);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
  for (const LinearCrossEntropyCase& c : linear_cross_entropy_speed_cases()) {
    for (const bool with_gradient : {false, true}) {
      const std::string suffix = "/linear_cross_entropy/" + c.name + (with_gradient ? "/forward_backward" : "/forward");
      for (const auto& [name, losses] : {std::pair{"titer", &titer_losses}, std::pair{"torch", &torch_losses}}) {
        benchmark::RegisterBenchmark((name + suffix).c_str(), run, c, losses, with_gradient)
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace titer::test
