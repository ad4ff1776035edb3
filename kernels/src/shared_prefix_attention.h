// What the backends of shared_prefix_attention share.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/shared_prefix_attention.h>

namespace titer {

struct SharedPrefixInputs {
  const at::Tensor& q;
  const at::Tensor& k;
  const at::Tensor& v;
  const at::Tensor& prefix_k;
  const at::Tensor& prefix_v;
  ops::SharedPrefixLayout layout;
};

/// Every backend calls this, because torch.ops.titer.* reaches the backends without passing the C++ entry.
void check_shared_prefix_attention(const SharedPrefixInputs& inputs, const at::Tensor& out);

/// Of checked arguments on any device: torch operations in float32 (float64 for float64), on continuations padded to
/// the longest of a few.
void shared_prefix_attention_composed(const SharedPrefixInputs& inputs, const at::Tensor& out);

}  // namespace titer
