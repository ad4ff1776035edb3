#include "reference/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <vector>

namespace titer::reference {

at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(1);
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape.front() = x.size(0);
  shape.back() = half;
  const at::Tensor c = cos.reshape(shape), s = sin.reshape(shape);
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  return at::cat({first * c - second * s, second * c + first * s, x.narrow(-1, 2 * half, x.size(-1) - 2 * half)}, -1);
}

}  // namespace titer::reference
