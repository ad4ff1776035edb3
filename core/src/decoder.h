// The layers of a decoder over packed rows. Every pass of the library is this one function: a batch, a decoding step,
// packed candidates and the gradient differ only in where attention finds its keys and values.
#pragma once

#include <ATen/core/Tensor.h>

#include <titer/core/causal_lm.h>

#include "rotary.h"
#include "workspace.h"

namespace titer {

/// What attention does with the rows of a pass. N rows, M <= N of which are wanted at the end.
class LayerAttention {
 public:
  virtual ~LayerAttention() = default;

  /// @param q     [M or N, Hkv, G, hd], rotated; G = H / Hkv query heads share a key head; M rows in the last layer
  /// @param k, v  [N, Hkv, hd], k rotated
  /// @return      [M or N, Hkv * G * hd]
  virtual at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) = 0;

  /// Indices [M] of the rows whose hidden states are wanted; undefined for all. The last layer computes queries, the
  /// output projection and the MLP only for these.
  virtual at::Tensor output_rows() const { return {}; }
};

/// What a pass computes: a model with its own weights, or with others of the same shapes in their place, some of which
/// may be in training.
struct Network {
  Network(const CausalLM& model) : config(model.config()), weights(model.weights()) {}  // every model is one
  Network(const ModelConfig& shape, const ModelWeights& values) : config(shape), weights(values) {}

  const ModelConfig& config;
  const ModelWeights& weights;
};

/// Final, normalised hidden states.
///
/// @param x          [N, d] placed embeddings (embedding.h); overwritten where a workspace is given
/// @param rotaries   angles of the N rows for each of the model's ropes
/// @param workspace  for passes without a gradient; null makes every step a new tensor that autograd can follow
/// @return           [M, d]
at::Tensor decode(const Network& network, at::Tensor x, const Rotaries& rotaries, LayerAttention& attention,
                  Workspace* workspace);

/// Floating-point operations (2 per multiply-add) of the linear layers of `decode` for N rows of which M are wanted.
double decode_linear_flops(const Network& network, int64_t rows, int64_t output_rows);

/// Throws ValueError if a hidden state is not finite.
void check_hidden_finite(const at::Tensor& hidden);

}  // namespace titer
