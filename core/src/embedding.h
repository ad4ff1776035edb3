// The two ends of a pass: token ids to the rows that enter the first layer, hidden states to logits.
#pragma once

#include <ATen/core/Tensor.h>

#include "decoder.h"

namespace titer {

/// Rows of the embedding table [N, d], as the first layer wants them: scaled, with learned positions added. Rows of
/// models that do neither are returned as they are. Follows gradients of `rows`.
///
/// @param positions  [N] int64
at::Tensor place(const Network& network, const at::Tensor& rows, const at::Tensor& positions);

/// The same from token ids [N].
at::Tensor embed(const Network& network, const at::Tensor& ids, const at::Tensor& positions);

/// [..., V] from final hidden states [..., d], soft cap included.
at::Tensor logits(const Network& network, const at::Tensor& hidden);

/// cap * tanh(x / cap)
at::Tensor soft_cap(const at::Tensor& x, double cap);

}  // namespace titer
