// What the backends and the autograd formula of rms_norm share.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

#include "rms_norm_rows.h"

namespace titer {

/// Arguments of the op; scale is "rounded", "wide" or "offset".
struct RmsNorm {
  const at::Tensor& x;
  const at::Tensor& weight;
  double eps;
  std::string_view scale;
  std::optional<at::Tensor> residual = std::nullopt;  ///< of the values only; its gradient is the incoming one
};

using RmsNormGrads = std::tuple<at::Tensor, at::Tensor>;

/// Every backend calls these, because torch.ops.titer.* reaches the backends without passing the C++ entry.
void check_rms_norm(const RmsNorm& norm, const at::Tensor& out);
void check_rms_norm_backward(const at::Tensor& grad, const RmsNorm& norm);

/// The gradient of the weight on any device, composed of torch operations: attacks do not ask for it.
at::Tensor rms_norm_grad_weight(const at::Tensor& grad, const RmsNorm& norm);

/// Values, and gradients of x and weight, through the dispatcher; gradients are undefined where output_mask
/// does not ask for them.
at::Tensor rms_norm_values(const RmsNorm& norm);
RmsNormGrads rms_norm_backward(const at::Tensor& grad, const RmsNorm& norm, std::array<bool, 2> output_mask);

/// Of checked arguments whose weight is contiguous. T is the backend's name for the element type of the tensors.
template <typename T>
RmsNormRows<T> rms_norm_rows(const RmsNorm& norm, const at::Tensor& out) {
  return {static_cast<const T*>(norm.x.const_data_ptr()),
          static_cast<const T*>(norm.weight.const_data_ptr()),
          norm.residual ? static_cast<const T*>(norm.residual->const_data_ptr()) : nullptr,
          static_cast<T*>(out.mutable_data_ptr()),
          norm.x.size(0),
          norm.x.size(1),
          norm.x.stride(0),
          norm.residual ? norm.residual->stride(0) : 0,
          out.stride(0),
          norm.eps,
          norm.scale == "offset" ? 1.0 : 0.0,
          norm.scale == "rounded"};
}

}  // namespace titer
