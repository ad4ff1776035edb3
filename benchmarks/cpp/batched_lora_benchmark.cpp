// batched_lora in place against torch: PEFT's composition, one run after another, and the batched products of equally
// long runs. GFLOP/s counts the low-rank products, 2 R r (d_in + d_out) forward and twice that backward; `base` is the
// product that they are added to, forward and for the gradient of x, with its own GFLOP/s. benchmarks/python/kernels.py
// runs it.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>
#include <titer/kernels/batched_lora.h>
#include <torch/csrc/autograd/autograd.h>

#include "batched_lora_cases.h"
#include "reference/batched_lora.h"

namespace titer::test {
namespace {

enum class Method { kTiter, kTorch, kTorchBatched, kBase };

/// Runs must be equally long, with one scale.
at::Tensor torch_batched(const at::Tensor& base, const at::Tensor& x, const ops::LoraBank& bank) {
  const std::vector<int64_t> runs{bank.rows.size(0), base.size(0) / bank.rows.size(0)};
  const at::Tensor wide_x = x.to(bank.a.scalar_type()).unflatten(0, runs);
  const at::Tensor projected = at::bmm(wide_x, bank.a.transpose(1, 2));
  const at::Tensor wide_base = base.unflatten(0, runs).to(bank.a.scalar_type());
  return at::baddbmm(wide_base, projected, bank.b.transpose(1, 2), /*beta=*/1, /*alpha=*/bank.scale[0])
      .to(base.scalar_type())
      .flatten(0, 1);
}

void run(benchmark::State& state, const LoraCase& c, at::ScalarType dtype, Method method, bool with_gradient) {
  LoraInputTensors inputs = lora_inputs(c, dtype);
  inputs.bank.scale.assign(c.rows.size(), 2.0);
  const auto op = method == Method::kTiter   ? ops::batched_lora
                  : method == Method::kTorch ? reference::batched_lora
                                             : torch_batched;
  const at::Tensor weight = at::randn({c.d_out, c.d_in}).to(dtype),
                   incoming = at::randn({c.total(), c.d_out}).to(dtype);
  if (method != Method::kBase) {
    const at::Tensor expected = reference::batched_lora(
        inputs.base.to(at::kDouble), inputs.x.to(at::kDouble),
        {inputs.bank.a.to(at::kDouble), inputs.bank.b.to(at::kDouble), inputs.bank.rows, inputs.bank.scale});
    if (!((op(inputs.base, inputs.x, inputs.bank) - expected).abs().max().item<double>() <=
          (dtype == at::kFloat ? 1e-4 : 0.1)))
      return state.SkipWithError("values differ from float64");
  }
  const at::AutoGradMode grad_mode(with_gradient);
  const at::Tensor base = inputs.base.clone();
  for (const at::Tensor& t : {inputs.x, inputs.bank.a, inputs.bank.b}) t.requires_grad_(with_gradient);
  for (auto _ : state) {
    if (method == Method::kBase) {
      const at::NoGradGuard no_grad;
      benchmark::DoNotOptimize(at::linear(inputs.x, weight).const_data_ptr());
      if (with_gradient) benchmark::DoNotOptimize(at::mm(incoming, weight).const_data_ptr());
      continue;
    }
    at::Tensor result = method == Method::kTiter ? ops::batched_lora_(base.detach(), inputs.x, inputs.bank)
                                                 : op(base, inputs.x, inputs.bank);
    if (with_gradient)
      result = torch::autograd::grad({result}, {inputs.x, inputs.bank.a, inputs.bank.b}, {incoming})[0];
    benchmark::DoNotOptimize(result.const_data_ptr());
  }
  const auto rows = static_cast<double>(c.total());
  const double flops = method == Method::kBase
                           ? 2 * rows * static_cast<double>(c.d_in * c.d_out) * (with_gradient ? 2 : 1)
                           : 2 * rows * static_cast<double>(c.rank * (c.d_in + c.d_out)) * (with_gradient ? 3 : 1);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const LoraCase& c : lora_speed_cases()) {
      for (const bool with_gradient : {false, true}) {
        const std::string name = "/batched_lora/" + c.name + (with_gradient ? "/forward_backward" : "/forward") +
                                 (dtype == at::kFloat ? "_float32" : "_bfloat16");
        for (const auto& [label, method] :
             {std::pair{"titer", Method::kTiter}, std::pair{"torch", Method::kTorch},
              std::pair{"torch_batched", Method::kTorchBatched}, std::pair{"base", Method::kBase}}) {
          benchmark::RegisterBenchmark((label + name).c_str(),
                                       [c, dtype, method = method, with_gradient](benchmark::State& state) {
                                         run(state, c, dtype, method, with_gradient);
                                       })
              ->Unit(benchmark::kMillisecond)
              ->UseRealTime();
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace titer::test
