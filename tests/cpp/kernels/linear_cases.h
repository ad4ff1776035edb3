// Shapes and layouts of linear: one table for values and speed.
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

namespace titer::test {

enum class LinearLayout {
  kContiguous,
  kPadded,      ///< rows of all tensors start at an even element and are longer by two
  kUnaligned,   ///< rows of all tensors start at an odd element and are longer by one
  kTransposed,  ///< weight is the transpose of a contiguous matrix
  kInPlace,     ///< out is residual
};

struct LinearCase {
  std::string name;
  int64_t rows, inner, outputs;
  bool bias = false, residual = false;
  LinearLayout layout = LinearLayout::kContiguous;
};

inline std::ostream& operator<<(std::ostream& out, const LinearCase& c) { return out << c.name; }

struct LinearTensors {
  at::Tensor x, weight;
  std::optional<at::Tensor> bias, residual;
  at::Tensor out;
};

inline std::vector<LinearCase> linear_cases() {
  return {
      {"no_rows", 0, 8, 8},
      {"no_outputs", 3, 8, 0},
      {"no_inner", 3, 0, 8, true, true},
      {"one_element", 1, 1, 1, true},
      {"one_row", 1, 64, 96},
      {"inner_odd", 5, 37, 40, false, true},
      {"outputs_odd", 17, 64, 77, true, true},
      {"bias", 32, 96, 64, true},
      {"residual", 32, 96, 64, false, true},
      {"inner_beyond_a_block", 33, 1568, 50, false, true},
      {"inner_between_blocks", 33, 130, 50, false, true},
      {"most_of_few_rows", 64, 160, 100, true, true},
      {"least_of_many_rows", 65, 160, 100, true, true},
      {"many_rows", 300, 64, 231, true, true},
      {"weight_beyond_a_cache", 66, 8192, 70, false, true},
      {"outputs_below_a_block", 40, 64, 31, true, true},
      {"weight_for_several_threads", 7, 576, 600, false, true},
      {"padded", 20, 64, 70, true, true, LinearLayout::kPadded},
      {"unaligned", 20, 64, 70, true, true, LinearLayout::kUnaligned},
      {"transposed", 20, 64, 70, true, false, LinearLayout::kTransposed},
      {"in_place", 20, 64, 70, false, true, LinearLayout::kInPlace},
      {"in_place_with_bias", 20, 64, 70, true, true, LinearLayout::kInPlace},
      {"many_rows_padded", 100, 64, 70, true, true, LinearLayout::kPadded},
      {"many_rows_unaligned", 100, 64, 70, true, true, LinearLayout::kUnaligned},
      {"many_rows_transposed", 100, 64, 70, true, false, LinearLayout::kTransposed},
      {"many_rows_in_place", 100, 64, 70, true, true, LinearLayout::kInPlace},
  };
}

/// Projections of SmolLM2-135M for the next token of 1, 8 and 32 sequences, and for a block of candidates.
inline std::vector<LinearCase> linear_speed_cases() {
  std::vector<LinearCase> out;
  for (const int64_t rows : {1, 8, 32, 1000}) {
    const std::string suffix = "_rows" + std::to_string(rows);
    out.push_back({"q" + suffix, rows, 576, 576});
    out.push_back({"up" + suffix, rows, 576, 1536});
    out.push_back({"down" + suffix, rows, 1536, 576, false, true, LinearLayout::kInPlace});
    if (rows < 1000) out.push_back({"head" + suffix, rows, 576, 49152});
  }
  return out;
}

/// Random inputs, the same at every call; out holds garbage.
inline LinearTensors linear_tensors(const LinearCase& c, at::ScalarType dtype, at::Device device = at::kCPU) {
  at::manual_seed(23);
  const auto options = at::TensorOptions(device).dtype(dtype);
  const auto laid_out = [&](at::IntArrayRef shape, double scale) {
    const at::Tensor values = (at::randn(shape, at::kFloat) * scale).to(options);
    const int64_t offset = c.layout == LinearLayout::kPadded ? 2 : c.layout == LinearLayout::kUnaligned ? 1 : 0;
    if (offset == 0 || shape.size() == 1) return values;
    return at::empty({shape[0], shape[1] + offset}, options).narrow(1, offset, shape[1]).copy_(values);
  };
  LinearTensors t{
      laid_out({c.rows, c.inner}, 1), laid_out({c.outputs, c.inner}, 0.3), {}, {}, laid_out({c.rows, c.outputs}, 7)};
  if (c.bias) t.bias = laid_out({c.outputs}, 2);
  if (c.residual) t.residual = laid_out({c.rows, c.outputs}, 4);
  if (c.layout == LinearLayout::kTransposed) t.weight = t.weight.t().contiguous().t();
  if (c.layout == LinearLayout::kInPlace) t.out = *t.residual;
  return t;
}

}  // namespace titer::test
