// Products of 16-bit matrices that leave as float32: ATen has them for tensors on CUDA only.
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

namespace titer::cuda_on_cpu {
namespace {

void check_dtypes(const at::Tensor& a, const at::Tensor& b, at::ScalarType out_dtype) {
  TORCH_CHECK(a.scalar_type() == b.scalar_type(), "factors must have one dtype, got ", a.scalar_type(), " and ",
              b.scalar_type());
  TORCH_CHECK(a.scalar_type() == at::kBFloat16 || a.scalar_type() == at::kHalf, "factors must have 16 bits, got ",
              a.scalar_type());
  TORCH_CHECK(out_dtype == at::kFloat, "the product must be float32, got ", out_dtype);
}

at::Tensor mm(const at::Tensor& a, const at::Tensor& b, at::ScalarType out_dtype) {
  check_dtypes(a, b, out_dtype);
  return at::mm(a.to(at::kFloat), b.to(at::kFloat));
}

at::Tensor& mm_out(const at::Tensor& a, const at::Tensor& b, at::ScalarType out_dtype, at::Tensor& out) {
  check_dtypes(a, b, out_dtype);
  return at::mm_out(out, a.to(at::kFloat), b.to(at::kFloat));
}

at::Tensor bmm(const at::Tensor& a, const at::Tensor& b, at::ScalarType out_dtype) {
  check_dtypes(a, b, out_dtype);
  return at::bmm(a.to(at::kFloat), b.to(at::kFloat));
}

}  // namespace
}  // namespace titer::cuda_on_cpu

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("mm.dtype", titer::cuda_on_cpu::mm);
  m.impl("mm.dtype_out", titer::cuda_on_cpu::mm_out);
  m.impl("bmm.dtype", titer::cuda_on_cpu::bmm);
}
