// Shapes and layouts of rope: one table for values, gradients and speed.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <c10/util/accumulate.h>

#include <cmath>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "repeated_rows.h"

namespace titer::test {

enum class RopeLayout {
  kContiguous,
  kFusedInput,    ///< x is one of three parts of every head of a fused projection
  kByHeadOutput,  ///< out is laid out [heads, N, ...]
  kUnaligned,     ///< everything starts at an odd element and rows are longer by one
  kInPlace,       ///< out is x
};

struct RopeCase {
  std::string name;
  std::vector<int64_t> shape;
  int64_t rotary_dim;
  RopeLayout layout = RopeLayout::kContiguous;
};

struct RopeTypes {
  at::ScalarType dtype, table_dtype;
};

inline std::ostream& operator<<(std::ostream& out, const RopeCase& c) { return out << c.name; }

struct RopeInputs {
  at::Tensor x, cos, sin, out;
};

inline std::vector<RopeTypes> rope_types() {
  std::vector<RopeTypes> types;
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    types.push_back({dtype, dtype});
    if (dtype != at::kFloat) types.push_back({dtype, at::kFloat});
  }
  return types;
}

inline std::vector<RopeCase> rope_cases() {
  return {
      {"no_rows", {0, 3, 8}, 8},
      {"no_heads", {4, 0, 8}, 8},
      {"no_rotation", {4, 2, 8}, 0},
      {"one_row", {1, 2, 3, 16}, 16},
      {"one_pair", {5, 2}, 2},
      {"no_head_dimension", {7, 12}, 12},
      {"half_odd", {6, 3, 38}, 38},
      {"half_below_a_vector", {6, 3, 14}, 14},
      {"half_above_a_vector", {6, 3, 70}, 70},
      {"head_64", {50, 9, 64}, 64},
      {"partial", {9, 4, 32}, 8},
      {"partial_odd", {9, 4, 37}, 10},
      {"rows_for_several_threads", {700, 3, 3, 32}, 32},
      {"fused_input", {33, 4, 24}, 24, RopeLayout::kFusedInput},
      {"fused_input_partial", {33, 4, 24}, 6, RopeLayout::kFusedInput},
      {"by_head_output", {33, 3, 2, 48}, 48, RopeLayout::kByHeadOutput},
      {"by_head_output_partial", {33, 3, 2, 48}, 12, RopeLayout::kByHeadOutput},
      {"unaligned", {21, 3, 2, 40}, 40, RopeLayout::kUnaligned},
      {"unaligned_partial", {21, 3, 40}, 26, RopeLayout::kUnaligned},
      {"in_place", {21, 3, 2, 40}, 40, RopeLayout::kInPlace},
      {"in_place_partial", {21, 3, 40}, 16, RopeLayout::kInPlace},
  };
}

/// Keys of SmolLM2-135M, queries of a small llama, keys of Gemma 3; as many rows as make `elements` of x.
inline std::vector<RopeCase> rope_speed_cases(int64_t elements) {
  return {
      {"hd64", {elements / (3 * 64), 3, 64}, 64},
      {"hd32_by_head", {elements / (3 * 2 * 32), 3, 2, 32}, 32, RopeLayout::kByHeadOutput},
      {"hd256", {elements / 256, 1, 256}, 256},
  };
}

/// A copy of `t` that starts at an odd element, with rows one longer than they need be.
inline at::Tensor unaligned(const at::Tensor& t) {
  std::vector<int64_t> shape = t.sizes().vec();
  shape.back() += 1;
  return at::empty({c10::multiply_integers(shape) + 1}, t.options())
      .narrow(0, 1, c10::multiply_integers(shape))
      .view(shape)
      .narrow(-1, 0, t.size(-1))
      .copy_(t);
}

/// Random inputs, the same at every call; out holds garbage.
inline RopeInputs rope_inputs(const RopeCase& c, const RopeTypes& types, at::Device device = at::kCPU) {
  at::manual_seed(17);
  const auto options = at::TensorOptions(device).dtype(types.dtype);
  const int64_t rows = c.shape.front();
  std::vector<int64_t> drawn = c.shape;
  drawn.front() = rows_to_draw(rows, c10::multiply_integers(drawn.begin() + 1, drawn.end()));
  at::Tensor x = repeated(at::randn(drawn, at::kDouble).to(options), rows);
  const at::Tensor angles = at::rand({drawn.front(), c.rotary_dim / 2}, at::kDouble) * (2 * M_PI);
  at::Tensor cos = repeated(angles.cos().to(options.dtype(types.table_dtype)), rows),
             sin = repeated(angles.sin().to(options.dtype(types.table_dtype)), rows);
  at::Tensor out = at::empty(c.shape, options).fill_(7);
  switch (c.layout) {
    case RopeLayout::kContiguous:
      break;
    case RopeLayout::kFusedInput: {
      std::vector<int64_t> fused = c.shape;
      fused.insert(fused.end() - 1, 3);
      x = at::empty(fused, options).fill_(7).select(-2, 1).copy_(x);
      break;
    }
    case RopeLayout::kByHeadOutput:
      out = out.transpose(0, 1).contiguous().transpose(0, 1);
      break;
    case RopeLayout::kUnaligned:
      x = unaligned(x);
      out = unaligned(out);
      cos = unaligned(cos);
      sin = unaligned(sin);
      break;
    case RopeLayout::kInPlace:
      out = x;
      break;
  }
  return {x, cos, sin, out};
}

}  // namespace titer::test
