// What the backends of rope share.
#pragma once

#include <ATen/core/Tensor.h>

#include "rope_rows.h"

namespace titer {

/// Every backend calls this, because torch.ops.titer.* reaches the backends without passing the C++ entry.
void check_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& out);

/// Of checked arguments whose tables are dense along their rows. Element types are the backend's names for those of the
/// tensors.
template <typename T, typename Table>
RopeRows<T, Table> rope_rows(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& out) {
  const int64_t middle = x.dim() - 2;
  const auto strides = [&](const at::Tensor& t) {
    return RopeStrides{t.stride(0), middle > 1 ? t.stride(1) : 0, middle > 0 ? t.stride(middle) : 0};
  };
  const int64_t half = cos.size(1);
  return {static_cast<const T*>(x.const_data_ptr()),
          static_cast<T*>(out.mutable_data_ptr()),
          static_cast<const Table*>(cos.const_data_ptr()),
          static_cast<const Table*>(sin.const_data_ptr()),
          x.size(0),
          middle > 1 ? x.size(1) : 1,
          middle > 0 ? x.size(middle) : 1,
          half,
          x.size(-1) - 2 * half,
          strides(x),
          strides(out),
          cos.stride(0),
          sin.stride(0)};
}

}  // namespace titer
