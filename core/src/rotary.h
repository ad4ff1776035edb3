// Tables of cosines and sines of the rotary position embedding; titer/kernels/rope.h applies them.
#pragma once

#include <ATen/core/Tensor.h>

#include <titer/core/model_config.h>

#include <vector>

namespace titer {

/// Cosines and sines of the angles of some rows, [N, rotary_dim / 2] each, in the model's dtype or float32.
struct Rotary {
  at::Tensor cos;
  at::Tensor sin;
};

/// One for each of the model's ropes; none where positions are learned.
using Rotaries = std::vector<Rotary>;

/// Angles for `positions` [N] int64. Frequencies are float32, as in transformers.
///
/// @param seq_len  length of the whole sequence that the rows belong to, for the ropes that depend on it
Rotaries make_rotaries(const ModelConfig& config, const at::Tensor& positions, int64_t seq_len, at::ScalarType dtype);

/// The same for rows of several sequences, packed one sequence behind the other: `positions[i]` of one that is
/// `seq_lens[i]` long.
Rotaries make_packed_rotaries(const ModelConfig& config, const std::vector<at::Tensor>& positions,
                              const std::vector<int64_t>& seq_lens, at::ScalarType dtype);

}  // namespace titer
