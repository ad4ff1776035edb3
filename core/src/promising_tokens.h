// The tokens that a gradient promises most of, for every session of a model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include <titer/core/causal_lm.h>

namespace titer {

/// As Session::promising_tokens, for a slot of `slot_length` tokens.
at::Tensor promising_tokens(const CausalLM& model, int64_t slot_length, const at::Tensor& gradient,
                            const at::Tensor& allowed, int64_t k);

}  // namespace titer
