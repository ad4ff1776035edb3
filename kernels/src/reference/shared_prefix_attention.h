// The definition of shared_prefix_attention, one continuation after the other. Tests compare every backend with it;
// nothing else may use it.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/kernels/shared_prefix_attention.h>

namespace titer::reference {

/// Same arguments and result as ops::shared_prefix_attention.
at::Tensor shared_prefix_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                   const ops::SharedPrefixLayout& layout);

}  // namespace titer::reference
