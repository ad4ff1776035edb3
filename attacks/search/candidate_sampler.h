// Draws the candidates of a search step: which positions change, and to what.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>

namespace titer {

struct CandidateSampling {
  int64_t width = 0;      ///< distinct candidates wanted
  int64_t n_replace = 1;  ///< positions changed in each
  bool stratified = false;
  uint64_t seed = 0;
  int64_t step = 0;
};

struct SampledCandidates {
  at::Tensor ids;     ///< [B, S] int64, distinct, different from the base, B <= width
  int64_t draws = 0;  ///< at most 20 x width
};

/// Draws until `width` distinct valid candidates are found or 20 x width draws are spent. Draw d is a function of
/// (seed, step, d) alone.
///
/// @param base    [S] ids
/// @param tokens  [S, m] int64 on the CPU, contiguous: replacements per position
/// @param valid   judges a candidate
SampledCandidates sample_candidates(std::span<const int64_t> base, const at::Tensor& tokens,
                                    const CandidateSampling& sampling,
                                    const std::function<bool(std::span<const int64_t>)>& valid);

}  // namespace titer
