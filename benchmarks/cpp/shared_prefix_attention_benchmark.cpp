// shared_prefix_attention on blocks of candidates, in GFLOP/s of the visible scores, against torch's attention of every
// candidate with a copy of the prefix, which does the same arithmetic.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <benchmark/benchmark.h>
#include <titer/kernels/shared_prefix_attention.h>

#include "reference/shared_prefix_attention.h"
#include "rounding.h"
#include "shared_prefix_attention_cases.h"

namespace titer::test {
namespace {

void report(benchmark::State& state, const SharedPrefixCase& c) {
  double pairs = 0;
  for (size_t i = 0; i < c.rows.size(); ++i) {
    const auto own = static_cast<double>(c.rows[i]);
    pairs += own * static_cast<double>(c.visible[i]) + own * (own + 1) / 2;
  }
  const double flops = 4 * pairs * static_cast<double>(c.kv_heads * c.group * c.head_dim);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void titer(benchmark::State& state, const SharedPrefixCase& c, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const SharedPrefixTensors t = shared_prefix_tensors(c, dtype);
  const auto run = [&] { ops::shared_prefix_attention_out(t.out, t.q, t.k, t.v, t.prefix_k, t.prefix_v, t.layout); };
  run();
  const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
  const at::Tensor expected =
      reference::shared_prefix_attention(wide(t.q), wide(t.k), wide(t.v), wide(t.prefix_k), wide(t.prefix_v), t.layout);
  if (!((wide(t.out) - expected).abs().max().item<double>() <= (dtype == at::kFloat ? 1e-4 : 5e-2)))
    return state.SkipWithError("values differ from float64");
  for (auto _ : state) run();
  report(state, c);
}

void torch(benchmark::State& state, const SharedPrefixCase& c, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const SharedPrefixTensors t = shared_prefix_tensors(c, dtype);
  const auto count = static_cast<int64_t>(c.rows.size());
  const int64_t rows = c.rows.front(), visible = c.visible.front();
  const at::Tensor mask = at::ones({rows, visible + rows}, at::kBool).tril(visible);
  for (auto _ : state) {
    const auto whole = [&](const at::Tensor& prefix, const at::Tensor& own) {
      return at::cat({prefix.narrow(1, 0, visible).unsqueeze(0).expand({count, -1, -1, -1}),
                      own.unflatten(0, {count, rows}).transpose(1, 2)},
                     2);
    };
    const at::Tensor q = t.q.flatten(1, 2).unflatten(0, {count, rows}).transpose(1, 2);
    benchmark::DoNotOptimize(at::scaled_dot_product_attention(q, whole(t.prefix_k, t.k), whole(t.prefix_v, t.v), mask,
                                                              0.0, false, t.layout.scale, /*enable_gqa=*/true)
                                 .const_data_ptr());
  }
  report(state, c);
}

const bool registered = [] {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const SharedPrefixCase& c : shared_prefix_speed_cases()) {
      const std::string name = "/shared_prefix_attention/" + c.name + (dtype == at::kFloat ? "_float32" : "_bfloat16");
      for (const auto& [method, function] : {std::pair{"titer", &titer}, std::pair{"torch", &torch}}) {
        benchmark::RegisterBenchmark((method + name).c_str(),
                                     [c, dtype, run = function](benchmark::State& state) { run(state, c, dtype); })
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace titer::test
