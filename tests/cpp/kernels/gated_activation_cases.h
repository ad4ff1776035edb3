// Shapes and layouts of gated_activation: one table for values, gradients and speed.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "repeated_rows.h"

namespace titer::test {

enum class GatedLayout {
  kContiguous,
  kFused,   ///< gate and up are the halves of one projection, as in Phi-3
  kPadded,  ///< rows of all start at an odd element and are longer by one
  kInGate,  ///< out is gate
  kInUp,    ///< out is up
};

struct GatedCase {
  std::string name;
  int64_t rows, width;
  GatedLayout layout = GatedLayout::kContiguous;
};

inline std::ostream& operator<<(std::ostream& out, const GatedCase& c) { return out << c.name; }

struct GatedInputs {
  at::Tensor gate, up, out;
};

inline std::vector<GatedCase> gated_cases() {
  return {
      {"no_rows", 0, 8},
      {"no_columns", 3, 0},
      {"one_element", 1, 1},
      {"below_a_vector", 5, 3},
      {"odd", 7, 37},
      {"several_vectors", 6, 192},
      {"rows_for_several_threads", 300, 259},
      {"fused", 9, 48, GatedLayout::kFused},
      {"fused_odd", 5, 51, GatedLayout::kFused},
      {"padded", 9, 64, GatedLayout::kPadded},
      {"in_gate", 12, 101, GatedLayout::kInGate},
      {"in_up", 12, 96, GatedLayout::kInUp},
  };
}

/// MLPs of a small llama, of SmolLM2-135M and of a model of a few billion parameters; as many rows as make `elements`
/// of gate.
inline std::vector<GatedCase> gated_speed_cases(int64_t elements) {
  return {{"f512", elements / 512, 512}, {"f1536", elements / 1536, 1536}, {"f8192", elements / 8192, 8192}};
}

/// Random inputs, the same at every call, gates from far below to far above zero; out holds garbage.
inline GatedInputs gated_inputs(const GatedCase& c, at::ScalarType dtype, at::Device device = at::kCPU) {
  at::manual_seed(19);
  const auto options = at::TensorOptions(device).dtype(dtype);
  const int64_t rows = rows_to_draw(c.rows, c.width);
  at::Tensor gate = repeated((at::randn({rows, c.width}, at::kDouble) * 4).to(options), c.rows);
  at::Tensor up = repeated(at::randn({rows, c.width}, at::kDouble).to(options), c.rows);
  at::Tensor out = at::empty({c.rows, c.width}, options).fill_(7);
  const auto padded = [&](const at::Tensor& t) {
    return at::empty({c.rows, c.width + 1}, options).narrow(1, 1, c.width).copy_(t);
  };
  switch (c.layout) {
    case GatedLayout::kContiguous:
      break;
    case GatedLayout::kFused: {
      const at::Tensor both = at::empty({c.rows, 2 * c.width}, options);
      gate = both.narrow(1, 0, c.width).copy_(gate);
      up = both.narrow(1, c.width, c.width).copy_(up);
      break;
    }
    case GatedLayout::kPadded:
      gate = padded(gate);
      up = padded(up);
      out = padded(out);
      break;
    case GatedLayout::kInGate:
      out = gate;
      break;
    case GatedLayout::kInUp:
      out = up;
      break;
  }
  return {gate, up, out};
}

}  // namespace titer::test
