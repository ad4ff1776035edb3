// Rotary position embedding (arXiv 2104.09864) and its scaled variants: linear (position interpolation, arXiv
// 2306.15595), dynamic NTK, and the piecewise scaling of Llama 3.1.
#include "rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

namespace titer {
namespace {

at::Tensor inverse_frequencies(const ModelConfig& config, int64_t seq_len) {
  const RopeConfig& rope = config.rope;
  const auto dim = static_cast<double>(config.head_dim);
  double base = rope.theta;
  if (rope.type == RopeConfig::Type::kDynamic) {
    const auto trained = static_cast<double>(config.max_position_embeddings);
    const double length = std::max(static_cast<double>(seq_len), trained);
    base *= std::pow(rope.factor * length / trained - (rope.factor - 1), dim / (dim - 2));
  }
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kFloat).div_(dim);
  at::Tensor frequencies = at::pow(base, exponents).reciprocal_();
  if (rope.type == RopeConfig::Type::kLinear) frequencies.div_(rope.factor);
  if (rope.type == RopeConfig::Type::kLlama3) {
    const auto context = static_cast<double>(rope.original_max_position_embeddings);
    const at::Tensor wavelengths = frequencies.reciprocal().mul_(2 * M_PI);
    const at::Tensor slow = wavelengths.gt(context / rope.low_freq_factor);
    const at::Tensor fast = wavelengths.lt(context / rope.high_freq_factor);
    const at::Tensor smooth = wavelengths.reciprocal().mul_(context).sub_(rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
    const at::Tensor scaled = frequencies / rope.factor;
    const at::Tensor between = (1 - smooth) * scaled + smooth * frequencies;
    frequencies = at::where(slow, scaled, at::where(fast, frequencies, between));
  }
  return frequencies;
}

}  // namespace

Rotary make_rotary(const ModelConfig& config, const at::Tensor& positions, int64_t seq_len, at::ScalarType dtype) {
  const at::Tensor frequencies = inverse_frequencies(config, seq_len).to(positions.device());
  const at::Tensor angles = at::outer(positions.to(at::kFloat), frequencies);
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

Rotary make_step_rotary(const ModelConfig& config, const at::Tensor& positions, at::ScalarType dtype) {
  if (config.rope.type != RopeConfig::Type::kDynamic) return make_rotary(config, positions, 0, dtype);
  std::vector<at::Tensor> cos, sin;
  for (int64_t row = 0; row < positions.size(0); ++row) {
    const at::Tensor position = positions.narrow(0, row, 1);
    const Rotary one = make_rotary(config, position, position.item<int64_t>() + 1, dtype);
    cos.push_back(one.cos);
    sin.push_back(one.sin);
  }
  return {at::cat(cos), at::cat(sin)};
}

at::Tensor apply_rotary(const at::Tensor& x, const Rotary& rotary, const at::Tensor& out) {
  const int64_t half = x.size(-1) / 2;
  std::vector<int64_t> table_shape(static_cast<size_t>(x.dim()), 1);
  table_shape.front() = x.size(0);
  table_shape.back() = half;
  const at::Tensor cos = rotary.cos.view(table_shape);
  const at::Tensor sin = rotary.sin.view(table_shape);
  const at::Tensor first = x.narrow(-1, 0, half);
  const at::Tensor second = x.narrow(-1, half, half);
  if (!out.defined()) return at::cat({first * cos - second * sin, second * cos + first * sin}, -1);
  at::Tensor out_first = out.narrow(-1, 0, half);
  at::Tensor out_second = out.narrow(-1, half, half);
  at::mul_out(out_first, first, cos).addcmul_(second, sin, -1);
  at::mul_out(out_second, second, cos).addcmul_(first, sin);
  return out;
}

}  // namespace titer
