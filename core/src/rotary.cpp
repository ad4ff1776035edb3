// Angles of the rotary position embedding (arXiv 2104.09864) and of its scaled variants: linear (position
// interpolation, arXiv 2306.15595), dynamic NTK, the piecewise scaling of Llama 3.1, and LongRoPE (arXiv 2402.13753).
#include "rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

namespace titer {
namespace {

at::Tensor inverse_frequencies(const ModelConfig& config, const RopeConfig& rope, int64_t seq_len) {
  const auto dim = static_cast<double>(rope.rotary_dim);
  double base = rope.theta;
  if (rope.type == RopeConfig::Type::kDynamic) {
    const auto trained = static_cast<double>(config.max_position_embeddings);
    const double length = std::max(static_cast<double>(seq_len), trained);
    base *= std::pow(rope.factor * length / trained - (rope.factor - 1), dim / (dim - 2));
  }
  const at::Tensor exponents = at::arange(0, rope.rotary_dim, 2, at::kFloat).div_(dim);
  const at::Tensor periods = at::pow(base, exponents);
  if (rope.type == RopeConfig::Type::kLongRope) {
    const auto& factors = seq_len > rope.original_max_position_embeddings ? rope.long_factors : rope.short_factors;
    return periods.mul(at::tensor(factors, at::kFloat)).reciprocal_();
  }
  at::Tensor frequencies = periods.reciprocal();
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

Rotary make_rotary(const ModelConfig& config, const RopeConfig& rope, const at::Tensor& positions, int64_t seq_len,
                   at::ScalarType dtype) {
  const at::Tensor frequencies = inverse_frequencies(config, rope, seq_len).to(positions.device());
  const at::Tensor angles = at::outer(positions.to(at::kFloat), frequencies);
  const at::ScalarType kept = rope.rotates_in_float32 ? at::kFloat : dtype;
  return {(angles.cos() * rope.attention_factor).to(kept), (angles.sin() * rope.attention_factor).to(kept)};
}

}  // namespace

Rotaries make_rotaries(const ModelConfig& config, const at::Tensor& positions, int64_t seq_len, at::ScalarType dtype) {
  Rotaries out;
  for (const RopeConfig& rope : config.ropes) out.push_back(make_rotary(config, rope, positions, seq_len, dtype));
  return out;
}

Rotaries join_rotaries(const std::vector<Rotaries>& groups) {
  Rotaries out;
  for (size_t rope = 0; !groups.empty() && rope < groups.front().size(); ++rope) {
    std::vector<at::Tensor> cos, sin;
    for (const Rotaries& group : groups) {
      cos.push_back(group[rope].cos);
      sin.push_back(group[rope].sin);
    }
    out.push_back({at::cat(cos), at::cat(sin)});
  }
  return out;
}

Rotaries make_step_rotaries(const ModelConfig& config, const at::Tensor& positions, at::ScalarType dtype) {
  const auto depends = [](const RopeConfig& rope) { return rope.depends_on_length(); };
  if (std::none_of(config.ropes.begin(), config.ropes.end(), depends)) {
    return make_rotaries(config, positions, /*seq_len=*/0, dtype);
  }
  std::vector<Rotaries> rows;
  for (int64_t row = 0; row < positions.size(0); ++row) {
    const at::Tensor position = positions.narrow(0, row, 1);
    rows.push_back(make_rotaries(config, position, position.item<int64_t>() + 1, dtype));
  }
  return join_rotaries(rows);
}

}  // namespace titer
