// Shapes and layouts of rms_norm: one table for values, gradients and speed.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "repeated_rows.h"

namespace titer::test {

enum class RmsNormLayout {
  kContiguous,
  kPadded,        ///< rows of x and out start at an odd element and are longer by one
  kEveryOther,    ///< x is every second row of a larger matrix
  kInPlace,       ///< out is x
  kOntoResidual,  ///< out is residual
};

struct RmsNormCase {
  std::string name;
  int64_t rows, d;
  RmsNormLayout layout = RmsNormLayout::kContiguous;
  bool residual = false;
};

inline std::ostream& operator<<(std::ostream& out, const RmsNormCase& c) { return out << c.name; }

struct RmsNormInputs {
  at::Tensor x, weight, out;
  std::optional<at::Tensor> residual;
};

inline std::vector<RmsNormCase> rms_norm_cases() {
  return {
      {"no_rows", 0, 8},
      {"one_element", 1, 1},
      {"one_row", 1, 64},
      {"d_below_a_vector", 5, 3},
      {"d_odd", 7, 37},
      {"d_of_several_chains", 4, 192},
      {"d_576", 33, 576},
      {"d_long_and_odd", 3, 2051},
      {"rows_for_several_threads", 300, 131},
      {"padded", 21, 40, RmsNormLayout::kPadded},
      {"padded_odd", 9, 77, RmsNormLayout::kPadded},
      {"every_other_row", 12, 96, RmsNormLayout::kEveryOther},
      {"in_place", 12, 101, RmsNormLayout::kInPlace},
      {"residual", 33, 192, RmsNormLayout::kContiguous, true},
      {"residual_padded", 9, 77, RmsNormLayout::kPadded, true},
      {"residual_in_place", 12, 101, RmsNormLayout::kInPlace, true},
      {"onto_residual", 21, 96, RmsNormLayout::kOntoResidual, true},
  };
}

/// Hidden states of a small llama, of SmolLM2-135M and of a model of a few billion parameters; as many rows as make
/// `elements` of x.
inline std::vector<RmsNormCase> rms_norm_speed_cases(int64_t elements) {
  return {{"d192", elements / 192, 192}, {"d576", elements / 576, 576}, {"d2048", elements / 2048, 2048}};
}

/// Random inputs, the same at every call; out holds garbage.
inline RmsNormInputs rms_norm_inputs(const RmsNormCase& c, at::ScalarType dtype, at::Device device = at::kCPU) {
  at::manual_seed(17);
  const auto options = at::TensorOptions(device).dtype(dtype);
  const int64_t rows = rows_to_draw(c.rows, c.d);
  at::Tensor x = repeated((at::randn({rows, c.d}, at::kDouble) * 3).to(options), c.rows);
  const at::Tensor weight = (at::randn({c.d}, at::kDouble) * 0.3 + 1).to(options);
  at::Tensor out = at::empty({c.rows, c.d}, options).fill_(7);
  const auto padded = [&](const at::Tensor& t) {
    return at::empty({c.rows, c.d + 1}, options).narrow(1, 1, c.d).copy_(t);
  };
  std::optional<at::Tensor> residual;
  if (c.residual) residual = repeated((at::randn({rows, c.d}, at::kDouble) * 5).to(options), c.rows);
  switch (c.layout) {
    case RmsNormLayout::kContiguous:
      break;
    case RmsNormLayout::kPadded:
      x = padded(x);
      out = padded(out);
      if (residual) residual = padded(*residual);
      break;
    case RmsNormLayout::kEveryOther:
      x = at::empty({2 * c.rows, c.d}, options).fill_(7).slice(0, 0, 2 * c.rows, 2).copy_(x);
      break;
    case RmsNormLayout::kInPlace:
      out = x;
      break;
    case RmsNormLayout::kOntoResidual:
      out = *residual;
      break;
  }
  return {x, weight, out, residual};
}

}  // namespace titer::test
