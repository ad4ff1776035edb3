// CUDA backend of batched_lora: cuBLAS products through ATen, batched over consecutive runs that are alike, and the
// update of rows in batched_lora.cu. The wide factors of bfloat16 products become three bfloat16 numbers each (arXiv
// 1904.06376): the tensor cores' sums of exact products are then as good as float32's.
#include "batched_lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <vector>

#include "cuda/batched_lora.cuh"
#include "cuda/element_type.h"
#include "tensor_checks.h"

namespace titer::cuda {
namespace {

/// Consecutive runs with the same number of rows, at least one, and the same scale.
struct AlikeRuns {
  int64_t first_run, runs, first_row, rows;
  double scale;

  at::Tensor of_runs(const at::Tensor& x) const { return x.narrow(0, first_run, runs); }
  /// [runs, rows, width], a view.
  at::Tensor of_rows(const at::Tensor& x) const {
    return x.narrow(0, first_row, runs * rows).unflatten(0, {runs, rows});
  }
};

std::vector<AlikeRuns> alike_runs(const LoraInputs& inputs) {
  const int64_t* const rows = inputs.rows.const_data_ptr<int64_t>();
  std::vector<AlikeRuns> out;
  int64_t row = 0;
  for (int64_t run = 0; run < inputs.rows.size(0); row += rows[run], ++run) {
    if (rows[run] == 0) continue;
    const double scale = inputs.scale[static_cast<size_t>(run)];
    const bool goes_on = !out.empty() && out.back().first_run + out.back().runs == run &&
                         out.back().rows == rows[run] && out.back().scale == scale;
    if (goes_on) {
      ++out.back().runs;
    } else {
      out.push_back({run, 1, row, rows[run], scale});
    }
  }
  return out;
}

constexpr int64_t kParts = 3;

/// Three bfloat16 tensors, one after the other along `dim`, that add up to a float32 one.
at::Tensor three_parts(const at::Tensor& x, int64_t dim) {
  std::vector<at::Tensor> parts;
  at::Tensor rest = x;
  for (int64_t i = 0; i < kParts; ++i) {
    parts.push_back(rest.to(at::kBFloat16));
    if (i + 1 < kParts) rest = rest - parts.back().to(at::kFloat);
  }
  return at::cat(parts, dim);
}

/// m [runs, rows, d] · factorᵀ [runs, r, d], wide.
at::Tensor project(const at::Tensor& m, const at::Tensor& factor) {
  if (m.scalar_type() != at::kBFloat16) return at::bmm(m.to(factor.scalar_type()), factor.transpose(1, 2));
  return at::bmm(m, three_parts(factor, 1).transpose(1, 2), at::kFloat).unflatten(2, {kParts, factor.size(1)}).sum(2);
}

/// Sum over rows of pᵀ · m, [runs, r, d], wide.
at::Tensor row_products(const at::Tensor& p, const at::Tensor& m) {
  if (m.scalar_type() != at::kBFloat16) return at::bmm(p.transpose(1, 2), m.to(p.scalar_type()));
  return at::bmm(three_parts(p, 2).transpose(1, 2), m, at::kFloat).unflatten(1, {kParts, p.size(2)}).sum(1);
}

/// out [runs, rows, d] (+)= p [runs, rows, r] · factor [runs, r, d]; p and factor are wide and contiguous.
void update(const at::Tensor& out, const at::Tensor& p, const at::Tensor& factor, bool accumulate) {
  with_element_type(out.scalar_type(), [&]<typename T>(T) {
    C10_CUDA_CHECK(update_rows(LowRankUpdate<T>{p.const_data_ptr<Wide<T>>(), factor.const_data_ptr<Wide<T>>(),
                                                static_cast<T*>(out.mutable_data_ptr()), out.size(0), out.size(1),
                                                p.size(2), out.size(2), out.stride(1), accumulate},
                               c10::cuda::getCurrentCUDAStream().stream()));
  });
}

/// scale bᵀ, [runs, r, d_out]
at::Tensor factor_b(const LoraInputs& inputs, const AlikeRuns& alike) {
  return alike.of_runs(inputs.b).transpose(1, 2).mul(alike.scale).contiguous();
}

at::Tensor batched_lora_forward_cuda(at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                     const at::Tensor& rows, at::ArrayRef<double> scale, bool needs_projected) {
  const at::Tensor dense_x = with_dense_rows(x);
  const LoraInputs inputs{dense_x, a, b, rows, scale};
  check_batched_lora(base, inputs);
  const c10::cuda::CUDAGuard guard(base.device());
  at::Tensor projected;
  if (needs_projected) projected = at::empty({x.size(0), a.size(1)}, a.options());
  for (const AlikeRuns& alike : alike_runs(inputs)) {
    const at::Tensor p = project(alike.of_rows(dense_x), alike.of_runs(a)).contiguous();
    if (needs_projected) alike.of_rows(projected).copy_(p);
    update(alike.of_rows(base), p, factor_b(inputs, alike), /*accumulate=*/true);
  }
  return projected;
}

LoraGrads batched_lora_backward_cuda(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& a,
                                     const at::Tensor& b, const std::optional<at::Tensor>& projected,
                                     const at::Tensor& rows, at::ArrayRef<double> scale,
                                     std::array<bool, 3> output_mask) {
  const LoraInputs inputs{x, a, b, rows, scale};
  const at::Tensor kept = projected.value_or(at::Tensor());
  check_batched_lora_backward(grad, inputs, kept, output_mask);
  const c10::cuda::CUDAGuard guard(grad.device());
  at::Tensor grad_x, grad_a, grad_b;
  if (output_mask[0]) grad_x = at::empty(x.sizes(), x.options());
  if (output_mask[1]) grad_a = at::zeros(a.sizes(), a.options());
  if (output_mask[2]) grad_b = at::zeros(b.sizes(), b.options());
  const at::Tensor dense_grad = grad.contiguous(), dense_x = x.contiguous();
  for (const AlikeRuns& alike : alike_runs(inputs)) {
    const at::Tensor g = alike.of_rows(dense_grad);
    if (output_mask[2]) {
      const at::Tensor sum = row_products(alike.of_rows(kept), g).mul_(alike.scale);
      alike.of_runs(grad_b).copy_(sum.transpose(1, 2));
    }
    if (!output_mask[0] && !output_mask[1]) continue;
    const at::Tensor q = project(g, factor_b(inputs, alike)).contiguous();
    if (output_mask[1]) alike.of_runs(grad_a).copy_(row_products(q, alike.of_rows(dense_x)));
    if (output_mask[0]) update(alike.of_rows(grad_x), q, alike.of_runs(a).contiguous(), /*accumulate=*/false);
  }
  return {grad_x, grad_a, grad_b};
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) {
  m.impl("batched_lora_forward_", titer::cuda::batched_lora_forward_cuda);
  m.impl("batched_lora_backward", titer::cuda::batched_lora_backward_cuda);
}
