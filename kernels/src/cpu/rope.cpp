// CPU backend of rope.
#include "rope.h"

#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <vector>

#include "cpu/parallel_rows.h"
#include "cpu/rope_vectors.h"

namespace titer::cpu {
namespace {

template <typename T, typename Table>
void rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& out) {
  const auto heads = rope_rows<T, Table>(x, cos, sin, out);
  parallel_rows(heads.rows, x.numel() / heads.rows,
                [&](int64_t begin, int64_t end) { rotate_rows(heads, begin, end); });
}

/// No model runs in float16 on a CPU: composed of torch operations.
void rotate_half(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& out) {
  const int64_t half = cos.size(1);
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape.front() = x.size(0);
  shape.back() = half;
  const at::Tensor c = cos.reshape(shape), s = sin.reshape(shape);
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  const at::Tensor out_first = first * c - second * s, out_second = second * c + first * s;  // out may be x
  out.copy_(x);
  out.narrow(-1, 0, half).copy_(out_first);
  out.narrow(-1, half, half).copy_(out_second);
}

at::Tensor& rope_out_cpu(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, at::Tensor& out) {
  check_rope(x, cos, sin, out);
  if (x.numel() == 0) return out;
  const at::Tensor c = cos.contiguous(), s = sin.contiguous();
  switch (x.scalar_type()) {
    case at::kFloat:
      rotate<float, float>(x, c, s, out);
      break;
    case at::kHalf:
      rotate_half(x, c, s, out);
      break;
    case at::kDouble:
      rotate<double, double>(x, c.to(at::kDouble), s.to(at::kDouble), out);
      break;
    default:
      if (c.scalar_type() == at::kFloat) {
        rotate<uint16_t, float>(x, c, s, out);
      } else {
        rotate<uint16_t, uint16_t>(x, c, s, out);
      }
  }
  return out;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) { m.impl("rope.out", titer::cpu::rope_out_cpu); }
