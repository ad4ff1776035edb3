// linear against torch's. Few rows in GB/s of the weight, which is what bounds them; reading it once beside them is the
// ceiling. Many rows in GFLOP/s. Weights rotate, so that none comes from a cache.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <titer/kernels/linear.h>

#include <numeric>

#include "linear_cases.h"
#include "memory_bandwidth.h"
#include "reference/linear.h"

namespace titer::test {
namespace {

enum class Method { kTiter, kTorch, kRead };

void read(const at::Tensor& weight) {
  const auto words = static_cast<int64_t>(weight.nbytes() / sizeof(uint64_t));
  const auto* const word = static_cast<const uint64_t*>(weight.const_data_ptr());
  at::parallel_for(0, words, 1 << 13, [&](int64_t begin, int64_t end) {
    benchmark::DoNotOptimize(std::accumulate(word + begin, word + end, uint64_t{0}, std::bit_xor<>()));
  });
}

bool has_many_rows(const LinearCase& c) { return c.rows > 100; }

/// Times `function`, in the unit of what bounds it.
template <typename Function>
void measure(benchmark::State& state, const LinearCase& c, int64_t weight_bytes, const Function& function) {
  measure_bandwidth(state, weight_bytes, function);
  if (!has_many_rows(c)) return;
  state.counters.clear();
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(c.rows * c.inner * c.outputs),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void run(benchmark::State& state, const LinearCase& c, at::ScalarType dtype, Method method) {
  const at::NoGradGuard no_grad;
  const LinearTensors t = linear_tensors(c, dtype);
  const auto bytes = static_cast<int64_t>(t.weight.nbytes());
  std::vector<at::Tensor> weights;
  for (int64_t held = 0; held < bytes_beyond_cache(); held += bytes) weights.push_back(t.weight.clone());
  size_t turn = 0;
  const auto next = [&] { return weights[turn++ % weights.size()]; };
  if (method == Method::kRead) return measure_bandwidth(state, bytes, [&] { read(next()); });
  if (method == Method::kTorch)
    return measure(state, c, bytes, [&] {
      const at::Tensor out = at::linear(t.x, next(), t.bias);
      benchmark::DoNotOptimize((t.residual ? t.residual->add(out) : out).const_data_ptr());
    });
  const std::optional<at::Tensor> residual = t.residual ? std::make_optional(t.residual->clone()) : std::nullopt;
  ops::linear_out(t.out, t.x, t.weight, t.bias, t.residual);
  const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
  at::Tensor expected = at::linear(wide(t.x), wide(t.weight));
  if (residual) expected += wide(*residual);
  if (!((wide(t.out) - expected).abs().max().item<double>() <= (dtype == at::kFloat ? 1e-3 : 0.5)))
    return state.SkipWithError("values differ from float64");
  measure(state, c, bytes, [&] { ops::linear_out(t.out, t.x, next(), t.bias, t.residual); });
}

const bool registered = [] {
  for (const LinearCase& c : linear_speed_cases())
    for (const auto& [name, method] :
         {std::pair{"titer", Method::kTiter}, std::pair{"torch", Method::kTorch}, std::pair{"read", Method::kRead}})
      if (method != Method::kRead || !has_many_rows(c))
        register_bandwidth(std::string(name) + "/linear/" + c.name + "_bfloat16",
                           [c, method = method](benchmark::State& state) { run(state, c, at::kBFloat16, method); });
  return true;
}();

}  // namespace
}  // namespace titer::test
