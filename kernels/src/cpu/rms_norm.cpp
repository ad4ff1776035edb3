// CPU backend of rms_norm.
#include "rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rsqrt.h>
#include <torch/library.h>

#include "cpu/parallel_rows.h"
#include "cpu/rms_norm_vectors.h"
#include "tensor_checks.h"

namespace titer::cpu {
namespace {

/// No model runs in float16 on a CPU: composed of torch operations.
at::Tensor normalised_half(const RmsNorm& norm) {
  const at::Tensor x = norm.x.to(at::kFloat);
  const at::Tensor normal = x * at::rsqrt(x.square().mean(1, /*keepdim=*/true) + norm.eps);
  const double offset = norm.scale == "offset" ? 1.0 : 0.0;
  const at::Tensor scaled = norm.scale == "rounded" ? normal.to(at::kHalf) * norm.weight
                                                    : (normal * (norm.weight.to(at::kFloat) + offset)).to(at::kHalf);
  return norm.residual ? *norm.residual + scaled : scaled;
}

at::Tensor& rms_norm_out_cpu(const at::Tensor& x, const at::Tensor& weight, double eps, std::string_view scale,
                             const std::optional<at::Tensor>& residual, at::Tensor& out) {
  check_rms_norm({x, weight, eps, scale, residual}, out);
  if (x.scalar_type() == at::kHalf) return out.copy_(normalised_half({x, weight, eps, scale, residual}));
  const at::Tensor dense_weight = weight.contiguous();
  with_element_type(x.scalar_type(), [&]<typename T>(T) {
    const auto rows = rms_norm_rows<T>({x, dense_weight, eps, scale, residual}, out);
    parallel_rows(rows.rows, rows.d, [&](int64_t begin, int64_t end) { normalise_rows(rows, begin, end); });
  });
  return out;
}

at::Tensor grad_x(const at::Tensor& grad, const RmsNorm& norm) {
  if (norm.x.scalar_type() == at::kHalf) {
    const at::Tensor x = norm.x.to(at::kFloat), weight = norm.weight.to(at::kFloat);
    return grad_x(grad.to(at::kFloat), {x, weight, norm.eps, norm.scale}).to(at::kHalf);
  }
  const at::Tensor x = with_dense_rows(norm.x), weight = norm.weight.contiguous(), dense_grad = with_dense_rows(grad);
  const at::Tensor out = at::empty(x.sizes(), x.options());
  with_element_type(x.scalar_type(), [&]<typename T>(T) {
    const RmsNormGradRows<T> rows{rms_norm_rows<T>({x, weight, norm.eps, norm.scale}, out),
                                  static_cast<const T*>(dense_grad.const_data_ptr()), dense_grad.stride(0)};
    parallel_rows(x.size(0), x.size(1), [&](int64_t begin, int64_t end) { normalise_rows_backward(rows, begin, end); });
  });
  return out;
}

RmsNormGrads rms_norm_backward_cpu(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, double eps,
                                   std::string_view scale, std::array<bool, 2> output_mask) {
  const RmsNorm norm{x, weight, eps, scale};
  check_rms_norm_backward(grad, norm);
  return {output_mask[0] ? grad_x(grad, norm) : at::Tensor(),
          output_mask[1] ? rms_norm_grad_weight(grad, norm) : at::Tensor()};
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) {
  m.impl("rms_norm.out", titer::cpu::rms_norm_out_cpu);
  m.impl("rms_norm_backward", titer::cpu::rms_norm_backward_cpu);
}
