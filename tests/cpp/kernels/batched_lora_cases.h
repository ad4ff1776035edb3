// Runs, shapes and layouts of batched_lora: one table for values, gradients and speed.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <titer/kernels/batched_lora.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

namespace titer::test {

enum class LoraLayout {
  kContiguous,
  kPadded,      ///< rows of base and x start at an odd element and are longer by one
  kEveryOther,  ///< rows of base and x are every second of a larger matrix; a and b are transposed views
};

struct LoraCase {
  std::string name;
  std::vector<int64_t> rows;
  int64_t d_in, d_out, rank;
  LoraLayout layout = LoraLayout::kContiguous;

  int64_t runs() const { return static_cast<int64_t>(rows.size()); }
  int64_t total() const { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }
};

inline std::ostream& operator<<(std::ostream& out, const LoraCase& c) { return out << c.name; }

struct LoraInputTensors {
  at::Tensor base, x;
  ops::LoraBank bank;
};

inline std::vector<LoraCase> lora_cases() {
  return {
      {"no_rows", {0, 0}, 8, 6, 2},
      {"one_number", {1}, 1, 1, 1},
      {"one_run", {20}, 24, 16, 4},
      {"one_row_each", {1, 1, 1}, 16, 8, 4},
      {"rank_one", {7, 9}, 16, 24, 1},
      {"rank_odd", {7, 9}, 16, 24, 3},
      {"rank_above_the_widths", {7, 9}, 4, 6, 10},
      {"widths_odd", {33, 12}, 37, 51, 5},
      {"width_in_odd", {33, 12}, 37, 48, 8},
      {"width_out_odd", {33, 12}, 48, 37, 8},
      {"some_run_without_rows", {0, 13, 0, 70, 0}, 20, 30, 4},
      {"rows_of_whole_blocks", {64, 128}, 32, 32, 8},
      {"rows_of_several_chunks", {700, 3, 257}, 24, 20, 8},
      {"columns_of_several_tiles", {30, 40}, 320, 300, 16},
      {"long_inner_dimension", {17, 5}, 2050, 40, 4},
      {"rank_of_several_blocks", {40, 33}, 96, 80, 72},
      {"padded", {21, 40}, 40, 48, 4, LoraLayout::kPadded},
      {"every_other_row", {21, 40}, 40, 48, 4, LoraLayout::kEveryOther},
  };
}

/// Sixteen runs of 8 sequences of 64 tokens on SmolLM2-135M's MLP, one such run, and sixteen of 16 sequences on a small
/// llama.
inline std::vector<LoraCase> lora_speed_cases() {
  return {{"smollm2_up_K16", std::vector<int64_t>(16, 512), 576, 1536, 16},
          {"smollm2_square_K16", std::vector<int64_t>(16, 512), 576, 576, 16},
          {"smollm2_square_K1", {512}, 576, 576, 16},
          {"small_llama_K16", std::vector<int64_t>(16, 1024), 192, 192, 16}};
}

inline at::ScalarType factor_type(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

/// Random inputs, the same at every call. The low-rank part is about as large as base.
inline LoraInputTensors lora_inputs(const LoraCase& c, at::ScalarType dtype, at::Device device = at::kCPU) {
  at::manual_seed(37);
  const int64_t total = c.total();
  const auto random = [&](at::IntArrayRef shape, double deviation, at::ScalarType type) {
    return (at::randn(shape, at::kDouble) * deviation).to(device, type);
  };
  const auto inverse_root = [](int64_t n) { return 1 / std::sqrt(static_cast<double>(n)); };
  at::Tensor base = random({total, c.d_out}, 1, dtype), x = random({total, c.d_in}, 1, dtype);
  at::Tensor a = random({c.runs(), c.rank, c.d_in}, inverse_root(c.d_in), factor_type(dtype));
  at::Tensor b = random({c.runs(), c.d_out, c.rank}, inverse_root(c.rank), factor_type(dtype));
  const auto padded = [&](const at::Tensor& t) {
    return at::empty({t.size(0), t.size(1) + 1}, t.options()).fill_(7).narrow(1, 1, t.size(1)).copy_(t);
  };
  const auto every_other = [&](const at::Tensor& t) {
    return at::empty({2 * t.size(0), t.size(1)}, t.options()).fill_(7).slice(0, 0, 2 * t.size(0), 2).copy_(t);
  };
  switch (c.layout) {
    case LoraLayout::kContiguous:
      break;
    case LoraLayout::kPadded:
      base = padded(base);
      x = padded(x);
      break;
    case LoraLayout::kEveryOther:
      base = every_other(base);
      x = every_other(x);
      a = a.transpose(1, 2).contiguous().transpose(1, 2);
      b = b.transpose(0, 2).contiguous().transpose(0, 2);
      break;
  }
  std::vector<double> scale;
  for (int64_t k = 0; k < c.runs(); ++k) scale.push_back(2.0 / static_cast<double>(k + 1));
  return {base, x, {a, b, at::tensor(c.rows, at::kLong), scale}};
}

}  // namespace titer::test
