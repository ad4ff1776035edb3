// rms_norm against the composition of torch operations and against a copy; see memory_bandwidth.h.
#include <ATen/core/grad_mode.h>
#include <titer/kernels/rms_norm.h>

#include "memory_bandwidth.h"
#include "reference/rms_norm.h"
#include "rms_norm_cases.h"
#include "rounding.h"

namespace titer::test {
namespace {

enum class Method { kTiter, kTorch, kCopy };

constexpr double kEps = 1e-5;
constexpr auto kScale = ops::RmsNormScale::kRounded;

void run(benchmark::State& state, const RmsNormCase& c, at::ScalarType dtype, Method method) {
  const at::NoGradGuard no_grad;
  const RmsNormInputs inputs = rms_norm_inputs(c, dtype);
  const at::Tensor &x = inputs.x, &weight = inputs.weight, &out = inputs.out;
  const auto bytes = static_cast<int64_t>(2 * x.nbytes());
  if (method == Method::kCopy) return measure_bandwidth(state, bytes, [&] { out.copy_(x); });
  if (method == Method::kTorch)
    return measure_bandwidth(
        state, bytes, [&] { benchmark::DoNotOptimize(reference::rms_norm(x, weight, kEps, kScale).const_data_ptr()); });
  ops::rms_norm_out(out, x, weight, kEps, kScale);
  const at::Tensor first = x.narrow(0, 0, 16).to(at::kDouble);
  const at::Tensor expected = reference::rms_norm(first, weight.to(at::kDouble), kEps, kScale);
  const double repeated = unit_roundoff(dtype) / unit_roundoff(at::kFloat);
  if (!(rounding_error(out.narrow(0, 0, 16), expected, expected, 100 + 1.01 * repeated) <= 1))
    return state.SkipWithError("values differ from float64");
  measure_bandwidth(state, bytes, [&] { ops::rms_norm_out(out, x, weight, kEps, kScale); });
}

const bool registered = [] {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const int64_t elements = bytes_beyond_cache() / 2 / static_cast<int64_t>(c10::elementSize(dtype));
    for (const RmsNormCase& c : rms_norm_speed_cases(elements)) {
      for (const auto& [name, method] :
           {std::pair{"titer", Method::kTiter}, std::pair{"torch", Method::kTorch}, std::pair{"copy", Method::kCopy}}) {
        const std::string type = dtype == at::kFloat ? "_float32" : "_bfloat16";
        register_bandwidth(std::string(name) + "/rms_norm/" + c.name + type,
                           [c, dtype, method = method](benchmark::State& state) { run(state, c, dtype, method); });
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace titer::test
