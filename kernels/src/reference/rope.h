// The definition of rope, composed of plain differentiable torch operations. Tests compare every backend with it;
// nothing else may use it.
#pragma once

#include <ATen/core/Tensor.h>

namespace titer::reference {

/// Same arguments and result as ops::rope; everything is computed in the dtype of the arguments.
at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace titer::reference
