// CUDA backend of shared_prefix_attention: composed of torch operations, whose products are what takes the time.
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "shared_prefix_attention.h"

namespace titer::cuda {
namespace {

at::Tensor& shared_prefix_attention_out_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const at::Tensor& prefix_k, const at::Tensor& prefix_v,
                                             const at::Tensor& rows, const at::Tensor& visible,
                                             std::optional<int64_t> queries, std::optional<int64_t> window,
                                             double scale, std::optional<double> soft_cap,
                                             const std::optional<at::Tensor>& first_row, at::Tensor& out) {
  const SharedPrefixInputs inputs{q,        k,        v,
                                  prefix_k, prefix_v, {rows, visible, queries, window, scale, soft_cap, first_row}};
  check_shared_prefix_attention(inputs, out);
  const c10::cuda::CUDAGuard guard(q.device());
  if (out.numel() > 0) shared_prefix_attention_composed(inputs, out);
  return out;
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) {
  m.impl("shared_prefix_attention.out", titer::cuda::shared_prefix_attention_out_cuda);
}
