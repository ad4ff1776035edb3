// rope against the composition of torch operations and against a copy; see memory_bandwidth.h.
#include <ATen/core/grad_mode.h>
#include <titer/kernels/rope.h>

#include "memory_bandwidth.h"
#include "reference/rope.h"
#include "rope_cases.h"
#include "rounding.h"

namespace titer::test {
namespace {

enum class Method { kTiter, kTorch, kCopy };

void run(benchmark::State& state, const RopeCase& c, at::ScalarType dtype, Method method) {
  const at::NoGradGuard no_grad;
  const RopeInputs inputs = rope_inputs(c, {dtype, dtype});
  const at::Tensor &x = inputs.x, &cos = inputs.cos, &sin = inputs.sin, &out = inputs.out;
  const auto first = [](const at::Tensor& t) { return t.narrow(0, 0, 16).to(at::kDouble); };
  if (method == Method::kTiter) {
    ops::rope_out(out, x, cos, sin);
    const at::Tensor expected = reference::rope(first(x), first(cos), first(sin));
    if (!(rounding_error(out.narrow(0, 0, 16), expected, first(x).abs().max(),
                         3 + 2 * unit_roundoff(dtype) / unit_roundoff(at::kFloat)) <= 1))
      return state.SkipWithError("values differ from float64");
  }
  const auto bytes = static_cast<int64_t>(2 * x.nbytes());
  switch (method) {
    case Method::kTiter:
      return measure_bandwidth(state, bytes + static_cast<int64_t>(2 * cos.nbytes()),
                               [&] { ops::rope_out(out, x, cos, sin); });
    case Method::kTorch:
      return measure_bandwidth(state, bytes + static_cast<int64_t>(2 * cos.nbytes()),
                               [&] { benchmark::DoNotOptimize(reference::rope(x, cos, sin).const_data_ptr()); });
    case Method::kCopy:
      return measure_bandwidth(state, bytes, [&] { out.copy_(x); });
  }
}

const bool registered = [] {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const int64_t elements = bytes_beyond_cache() / 2 / static_cast<int64_t>(c10::elementSize(dtype));
    for (const RopeCase& c : rope_speed_cases(elements)) {
      for (const auto& [name, method] :
           {std::pair{"titer", Method::kTiter}, std::pair{"torch", Method::kTorch}, std::pair{"copy", Method::kCopy}}) {
        // The copy is of dense tensors: what memory allows, whatever the layout.
        if (method == Method::kCopy && c.layout != RopeLayout::kContiguous) continue;
        const std::string type = dtype == at::kFloat ? "_float32" : "_bfloat16";
        register_bandwidth(std::string(name) + "/rope/" + c.name + type,
                           [c, dtype, method = method](benchmark::State& state) { run(state, c, dtype, method); });
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace titer::test
