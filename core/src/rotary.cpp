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

Rotaries make_packed_rotaries(const ModelConfig& config, const std::vector<at::Tensor>& positions,
                              const std::vector<int64_t>& seq_lens, at::ScalarType dtype) {
  Rotaries out;
  for (const RopeConfig& rope : config.ropes) {
    if (!rope.depends_on_length()) {
      out.push_back(make_rotary(config, rope, at::cat(positions), /*seq_len=*/0, dtype));
      continue;
    }
    std::vector<at::Tensor> cos, sin;
    for (size_t i = 0; i < positions.size(); ++i) {
      const Rotary one = make_rotary(config, rope, positions[i], seq_lens[i], dtype);
      cos.push_back(one.cos);
      sin.push_back(one.sin);
    }
    out.push_back({at::cat(cos), at::cat(sin)});
  }
  return out;
}

}  // namespace titer
