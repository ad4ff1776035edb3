// token_gradient_topk against what torch offers for it: the product of all scores, masked_fill, topk, whose order among
// equal scores is unspecified. GFLOP/s counts the product. benchmarks/python/kernels.py runs it.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/topk.h>
#include <benchmark/benchmark.h>
#include <titer/kernels/token_gradient_topk.h>

#include <limits>

#include "reference/token_gradient_topk.h"
#include "token_gradient_topk_cases.h"

namespace titer::test {
namespace {

ops::TokenGradientTopk torch_topk(const at::Tensor& gradient, const at::Tensor& embedding, const at::Tensor& allowed,
                                  int64_t k) {
  const at::Tensor scores = at::mm(gradient, embedding.t())
                                .to(at::kFloat)
                                .masked_fill_(allowed.logical_not(), std::numeric_limits<double>::infinity());
  auto [values, ids] = at::topk(scores, k, /*dim=*/1, /*largest=*/false, /*sorted=*/true);
  return {std::move(ids), std::move(values)};
}

using Topk = ops::TokenGradientTopk (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t);

/// torch rounds its bfloat16 scores, so only a coarse bound fits both.
bool is_correct(Topk topk, const at::Tensor& gradient, const at::Tensor& embedding, const at::Tensor& allowed,
                int64_t k) {
  const at::Tensor expected =
      reference::token_gradient_topk(gradient.to(at::kDouble), embedding.to(at::kDouble), allowed, k).scores;
  return (topk(gradient, embedding, allowed, k).scores - expected).abs().max().item<double>() <= 0.1;
}

void run(benchmark::State& state, const TopkCase& c, at::ScalarType dtype, Topk topk) {
  const at::NoGradGuard no_grad;
  const auto [gradient, embedding, allowed] = topk_inputs(c, dtype);
  if (!is_correct(topk, gradient.narrow(0, 0, 4), embedding.narrow(0, 0, 8192), allowed.narrow(0, 0, 8192), c.k))
    return state.SkipWithError("scores differ from float64");
  for (auto _ : state) benchmark::DoNotOptimize(topk(gradient, embedding, allowed, c.k).ids.const_data_ptr());
  const double flops = 2.0 * static_cast<double>(c.positions * c.d) * static_cast<double>(c.vocab);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const TopkCase& c : topk_speed_cases()) {
      const std::string name = "/token_gradient_topk/" + c.name + (dtype == at::kFloat ? "_float32" : "_bfloat16");
      for (const auto& [method, topk] :
           {std::pair{"titer", &ops::token_gradient_topk}, std::pair{"torch", &torch_topk}}) {
        benchmark::RegisterBenchmark((method + name).c_str(),
                                     [c, dtype, topk = topk](benchmark::State& state) { run(state, c, dtype, topk); })
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace titer::test
