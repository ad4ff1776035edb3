// What the backends of token_gradient_topk share.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>

namespace titer {

/// ids and scores, see the public header.
using TokenGradientTopkOutputs = std::tuple<at::Tensor, at::Tensor>;

/// Every backend calls this, because torch.ops.titer.* reaches the backends without passing the C++ entry.
void check_token_gradient_topk(const at::Tensor& gradient, const at::Tensor& embedding, const at::Tensor& allowed,
                               int64_t k);

/// Uninitialised outputs, on the device of `gradient`.
TokenGradientTopkOutputs empty_token_gradient_topk_outputs(const at::Tensor& gradient, int64_t k);

}  // namespace titer
