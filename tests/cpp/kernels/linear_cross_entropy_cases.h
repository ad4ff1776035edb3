// Shapes, layouts and error bounds of linear_cross_entropy: one table for values, gradients and speed.
#pragma once

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace titer::test {

enum class Layout {
  kContiguous,
  kTransposedHidden,  ///< hidden is a view with stride 1 along its rows
  kStridedHidden,     ///< hidden is every second row and column of a larger matrix
  kPaddedWeight,      ///< rows of the weight are longer than d, by an even number
  kOddStrideWeight,   ///< rows of the weight are longer than d, by an odd number
};

struct LinearCrossEntropyCase {
  std::string name;
  int64_t rows, d, vocab;
  at::ScalarType dtype;
  Layout layout;
  double logit_scale;     ///< standard deviation of the logits
  double value_bound;     ///< of loss, lse and best_other against float64, times max(1, largest |logit|)
  double gradient_bound;  ///< of gradients against float64, times the largest |gradient|
};

inline std::ostream& operator<<(std::ostream& out, const LinearCrossEntropyCase& c) { return out << c.name; }

struct LinearCrossEntropyInputs {
  at::Tensor hidden, weight, target;
};

/// The 16-bit types have the value bound of float32: their products are exact and summed in float32, never rounded
/// back. Their gradients are rounded. An error of the logits is a relative error of the softmax.
inline std::vector<LinearCrossEntropyCase> linear_cross_entropy_cases() {
  std::vector<LinearCrossEntropyCase> cases;
  const auto add = [&](const std::string& name, int64_t rows, int64_t d, int64_t vocab,
                       Layout layout = Layout::kContiguous, double logit_scale = 3) {
    const double softmax = std::max(1.0, logit_scale / 3);
    cases.push_back({name + "_float32", rows, d, vocab, at::kFloat, layout, logit_scale, 2e-6, 1e-5 * softmax});
    cases.push_back({name + "_bfloat16", rows, d, vocab, at::kBFloat16, layout, logit_scale, 2e-6, 1e-2 * softmax});
    cases.push_back({name + "_float16", rows, d, vocab, at::kHalf, layout, logit_scale, 2e-6, 1e-2 * softmax});
    cases.push_back({name + "_float64", rows, d, vocab, at::kDouble, layout, logit_scale, 1e-13, 1e-12 * softmax});
  };
  add("no_rows", 0, 8, 50);
  add("one_row", 1, 8, 50);
  add("two_tokens", 5, 4, 2);
  add("hidden_size_one", 7, 1, 33);
  add("hidden_size_odd", 19, 37, 300);
  add("vocab_below_a_tile", 16, 32, 100);
  add("vocab_of_one_tile", 16, 32, 128);
  add("vocab_one_above_a_tile", 17, 32, 129);
  add("vocab_of_one_chunk", 16, 16, 1024);
  add("vocab_not_a_multiple", 65, 48, 2999);
  add("rows_of_one_block", 64, 24, 515);
  add("rows_of_several_groups", 1100, 16, 777);
  add("long_inner_dimension", 33, 2050, 200);
  add("transposed_hidden", 40, 30, 500, Layout::kTransposedHidden);
  add("strided_hidden", 40, 30, 500, Layout::kStridedHidden);
  add("padded_weight", 40, 30, 500, Layout::kPaddedWeight);
  add("odd_stride_weight", 40, 30, 500, Layout::kOddStrideWeight);
  add("logits_beyond_ten_thousand", 30, 20, 1500, Layout::kContiguous, 4e3);
  return cases;
}

/// SmolLM2-135M's head: gradient step, scoring block, large batch.
inline std::vector<LinearCrossEntropyCase> linear_cross_entropy_speed_cases() {
  std::vector<LinearCrossEntropyCase> cases;
  for (const int64_t rows : {16, 512, 4096}) {
    const std::string name = "R" + std::to_string(rows);
    cases.push_back({name + "_float32", rows, 576, 49152, at::kFloat, Layout::kContiguous, 3, 2e-6, 1e-5});
    cases.push_back({name + "_bfloat16", rows, 576, 49152, at::kBFloat16, Layout::kContiguous, 3, 2e-6, 1e-2});
  }
  return cases;
}

inline at::Tensor with_layout(const at::Tensor& matrix, Layout layout) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  const auto copy_into = [&](const at::Tensor& view) { return view.copy_(matrix); };
  const auto empty = [&](int64_t m, int64_t n) { return at::empty({m, n}, matrix.options()); };
  switch (layout) {
    case Layout::kTransposedHidden:
      return copy_into(empty(columns, rows).t());
    case Layout::kStridedHidden:
      return copy_into(empty(2 * rows, 2 * columns).slice(0, 0, 2 * rows, 2).slice(1, 1, 2 * columns, 2));
    case Layout::kPaddedWeight:
      return copy_into(empty(rows, columns + 6).narrow(1, 2, columns));
    case Layout::kOddStrideWeight:
      return copy_into(empty(rows, columns + 5).narrow(1, 3, columns));
    default:
      return matrix;
  }
}

/// Random inputs, the same at every call. Targets include the first and last token and both sides of tile borders.
inline LinearCrossEntropyInputs linear_cross_entropy_inputs(const LinearCrossEntropyCase& c, at::Device device) {
  at::manual_seed(17);
  const auto random = [&](int64_t rows, double scale) {
    return (at::randn({rows, c.d}, at::kDouble) * scale).to(c.dtype);
  };
  at::Tensor hidden = random(c.rows, 1), weight = random(c.vocab, c.logit_scale / std::sqrt(static_cast<double>(c.d)));
  at::Tensor target = at::randint(c.vocab, {c.rows}, at::kLong);
  const int64_t borders[] = {0, c.vocab - 1, 127, 128, 1023, 1024};
  for (int64_t r = 0; r < std::min<int64_t>(c.rows / 2, 6); ++r) {
    if (borders[r] < c.vocab) target[r].fill_(borders[r]);
  }
  hidden = hidden.to(device);
  weight = weight.to(device);
  const bool is_hidden = c.layout == Layout::kTransposedHidden || c.layout == Layout::kStridedHidden;
  return {is_hidden ? with_layout(hidden, c.layout) : hidden, is_hidden ? weight : with_layout(weight, c.layout),
          target.to(device)};
}

}  // namespace titer::test
