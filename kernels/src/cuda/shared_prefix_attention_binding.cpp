// CUDA backend of shared_prefix_attention: the kernel of shared_prefix_attention.cu for what it takes, torch operations
// for the rest.
#include "shared_prefix_attention.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>

#include "cuda/shared_prefix_attention.cuh"
#include "cuda/vector_access.cuh"

namespace titer::cuda {
namespace {

bool has_aligned_heads(const at::Tensor& x) {
  if (!is_aligned(x.const_data_ptr(), kAccessBytes)) return false;
  for (int64_t d = 0; d + 1 < x.dim(); ++d) {
    if (x.size(d) > 1 && x.stride(d) * x.element_size() % kAccessBytes != 0) return false;
  }
  return true;
}

bool allows_kernel(const SharedPrefixInputs& inputs, const at::Tensor& out) {
  const auto& [q, k, v, prefix_k, prefix_v, layout] = inputs;
  if (!at::isReducedFloatingType(q.scalar_type())) return false;
  if (q.size(3) % kHeadDimStep != 0 || q.size(3) > kMaxHeadDim || q.size(1) > kMaxHeads) return false;
  if (q.size(0) * q.size(2) > kMaxPositions || k.size(0) + prefix_k.size(1) > kMaxPositions) return false;
  for (const at::Tensor& x : {q, k, v, prefix_k, prefix_v, out}) {
    if (!has_aligned_heads(x)) return false;
  }
  return true;
}

template <typename T>
void attend(const SharedPrefixInputs& inputs, const at::Tensor& out) {
  const auto keys = [](const at::Tensor& x, int64_t row_dim) {
    return KeyHeads<T>{static_cast<const T*>(x.const_data_ptr()), x.stride(row_dim), x.stride(1 - row_dim)};
  };
  const auto& [q, k, v, prefix_k, prefix_v, layout] = inputs;
  const AttentionHeads<T> heads{
      .q = {static_cast<const T*>(q.const_data_ptr()), q.stride(0), q.stride(1), q.stride(2)},
      .out = {static_cast<T*>(out.mutable_data_ptr()), out.stride(0), out.stride(1), out.stride(2)},
      .k = keys(k, 0),
      .v = keys(v, 0),
      .prefix_k = keys(prefix_k, 1),
      .prefix_v = keys(prefix_v, 1),
      .heads = static_cast<int32_t>(q.size(1)),
      .group = static_cast<int32_t>(q.size(2)),
      .head_dim = static_cast<int32_t>(q.size(3)),
      .window = static_cast<int32_t>(std::min(layout.window.value_or(kMaxPositions), kMaxPositions)),
      .scale = static_cast<float>(layout.scale),
      .soft_cap = static_cast<float>(layout.soft_cap.value_or(0))};
  C10_CUDA_CHECK(attend(heads, continuations(layout), c10::cuda::getCurrentCUDAStream().stream()));
}

at::Tensor& shared_prefix_attention_out_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                             const at::Tensor& rows, const at::Tensor& visible,
                                             std::optional<int64_t> queries, std::optional<int64_t> window,
                                             double scale, std::optional<double> soft_cap,
                                             const std::optional<at::Tensor>& first_row, at::Tensor& out) {
  const SharedPrefixInputs inputs{q,        k,        v,
                                  prefix_k, prefix_v, {rows, visible, queries, window, scale, soft_cap, first_row}};
  check_shared_prefix_attention(inputs, out);
  if (out.numel() == 0) return out;
  const c10::cuda::CUDAGuard guard(q.device());
  if (!allows_kernel(inputs, out)) {
    shared_prefix_attention_composed(inputs, out);
  } else if (q.scalar_type() == at::kHalf) {
    attend<__half>(inputs, out);
  } else {
    attend<__nv_bfloat16>(inputs, out);
  }
  return out;
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) {
  m.impl("shared_prefix_attention.out", titer::cuda::shared_prefix_attention_out_cuda);
}
