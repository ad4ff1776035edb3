#include "workspace.h"

#include <ATen/ops/empty.h>
#include <c10/util/accumulate.h>

namespace titer {

at::Tensor Workspace::take(std::string_view purpose, at::IntArrayRef shape, const at::TensorOptions& options) {
  const int64_t numel = c10::multiply_integers(shape);
  at::Tensor& buffer = buffers_[purpose];
  if (!buffer.defined() || buffer.numel() < numel) {
    buffer = at::Tensor();  // freed before its successor is allocated
    buffer = at::empty({numel}, options);
  }
  return buffer.narrow(0, 0, numel).view(shape);
}

int64_t Workspace::bytes() const {
  int64_t total = 0;
  for (const auto& [purpose, buffer] : buffers_)
    if (buffer.defined()) total += static_cast<int64_t>(buffer.nbytes());
  return total;
}

}  // namespace titer
