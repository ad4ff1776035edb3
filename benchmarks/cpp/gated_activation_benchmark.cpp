// gated_activation against the composition of torch operations and against a copy; see memory_bandwidth.h.
#include <ATen/core/grad_mode.h>
#include <titer/kernels/gated_activation.h>

#include "gated_activation_cases.h"
#include "memory_bandwidth.h"
#include "reference/gated_activation.h"
#include "rounding.h"

namespace titer::test {
namespace {

enum class Method { kTiter, kTorch, kCopy };

constexpr auto kActivation = ops::GateActivation::kSilu;

void run(benchmark::State& state, const GatedCase& c, at::ScalarType dtype, Method method) {
  const at::NoGradGuard no_grad;
  const GatedInputs inputs = gated_inputs(c, dtype);
  const at::Tensor &gate = inputs.gate, &up = inputs.up, &out = inputs.out;
  if (method == Method::kCopy)
    return measure_bandwidth(state, static_cast<int64_t>(2 * gate.nbytes()), [&] { out.copy_(gate); });
  const auto bytes = static_cast<int64_t>(3 * gate.nbytes());
  if (method == Method::kTorch)
    return measure_bandwidth(state, bytes, [&] {
      benchmark::DoNotOptimize(reference::gated_activation(gate, up, kActivation).const_data_ptr());
    });
  ops::gated_activation_out(out, gate, up, kActivation);
  const auto first = [](const at::Tensor& t) { return t.narrow(0, 0, 16).to(at::kDouble); };
  const at::Tensor expected = reference::gated_activation(first(gate), first(up), kActivation);
  const double repeated = unit_roundoff(dtype) / unit_roundoff(at::kFloat);
  if (!(rounding_error(out.narrow(0, 0, 16), expected, expected, 64 + 1.01 * repeated) <= 1))
    return state.SkipWithError("values differ from float64");
  measure_bandwidth(state, bytes, [&] { ops::gated_activation_out(out, gate, up, kActivation); });
}

const bool registered = [] {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const int64_t elements = bytes_beyond_cache() / 3 / static_cast<int64_t>(c10::elementSize(dtype));
    for (const GatedCase& c : gated_speed_cases(elements)) {
      for (const auto& [name, method] :
           {std::pair{"titer", Method::kTiter}, std::pair{"torch", Method::kTorch}, std::pair{"copy", Method::kCopy}}) {
        const std::string type = dtype == at::kFloat ? "_float32" : "_bfloat16";
        register_bandwidth(std::string(name) + "/gated_activation/" + c.name + type,
                           [c, dtype, method = method](benchmark::State& state) { run(state, c, dtype, method); });
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace titer::test
