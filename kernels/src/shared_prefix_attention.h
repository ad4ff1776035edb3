// What the backends of shared_prefix_attention share.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/shared_prefix_attention.h>

#include <array>
#include <tuple>
#include <vector>

#include "continuation.h"

namespace titer {

struct SharedPrefixInputs {
  const at::Tensor& q;
  const at::Tensor& k;
  const at::Tensor& v;
  const at::Tensor& prefix_k;
  const at::Tensor& prefix_v;
  ops::SharedPrefixLayout layout;
};

/// Of q, k, v, prefix_k and prefix_v; undefined where output_mask does not ask for one.
using SharedPrefixGrads = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Every backend calls these, because torch.ops.titer.* reaches the backends without passing the C++ entry.
void check_shared_prefix_attention(const SharedPrefixInputs& inputs, const at::Tensor& out);
void check_shared_prefix_attention_backward(const at::Tensor& grad, const SharedPrefixInputs& inputs);

/// Of a layout that was checked and has values.
std::vector<Continuation> continuations(const ops::SharedPrefixLayout& layout);

/// Of checked arguments on any device: torch operations in float32 (float64 for float64), on continuations padded to
/// the longest of a few.
void shared_prefix_attention_composed(const SharedPrefixInputs& inputs, const at::Tensor& out);
SharedPrefixGrads shared_prefix_attention_backward_composed(const at::Tensor& grad, const SharedPrefixInputs& inputs,
                                                            std::array<bool, 5> output_mask);

/// Values and gradients through the dispatcher.
at::Tensor shared_prefix_attention_values(const SharedPrefixInputs& inputs);
SharedPrefixGrads shared_prefix_attention_backward(const at::Tensor& grad, const SharedPrefixInputs& inputs,
                                                   std::array<bool, 5> output_mask);

}  // namespace titer
