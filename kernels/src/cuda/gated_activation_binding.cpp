// CUDA backend of gated_activation.
#include "gated_activation.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/element_type.h"
#include "cuda/gated_activation.cuh"
#include "tensor_checks.h"

namespace titer::cuda {
namespace {

Gate gate_of(ops::GateActivation activation) {
  switch (activation) {
    case ops::GateActivation::kSilu:
      return Gate::kSilu;
    case ops::GateActivation::kGelu:
      return Gate::kGelu;
    default:
      return Gate::kGeluTanh;
  }
}

at::Tensor& gated_activation_out_cuda(const at::Tensor& gate, const at::Tensor& up, std::string_view name,
                                      at::Tensor& out) {
  const Gate activation = gate_of(gate_activation(name));
  check_gated_activation(gate, up, out);
  if (gate.numel() == 0) return out;
  const c10::cuda::CUDAGuard guard(gate.device());
  with_element_type(gate.scalar_type(), [&]<typename T>(T) {
    C10_CUDA_CHECK(gate_rows(gated_rows<T>(gate, up, out), activation, c10::cuda::getCurrentCUDAStream().stream()));
  });
  return out;
}

GatedGrads gated_activation_backward_cuda(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                                          std::string_view name) {
  const Gate activation = gate_of(gate_activation(name));
  check_gated_activation_backward(grad, gate, up);
  const c10::cuda::CUDAGuard guard(gate.device());
  const GatedGrads results{at::empty(gate.sizes(), gate.options()), at::empty(gate.sizes(), gate.options())};
  if (gate.numel() == 0) return results;
  const at::Tensor g = with_dense_rows(grad), x = with_dense_rows(gate), y = with_dense_rows(up);
  with_element_type(gate.scalar_type(), [&]<typename T>(T) {
    C10_CUDA_CHECK(gate_rows_backward(gated_grad_rows<T>(g, x, y, results), activation,
                                      c10::cuda::getCurrentCUDAStream().stream()));
  });
  return results;
}

}  // namespace
}  // namespace titer::cuda

TORCH_LIBRARY_IMPL(titer, CUDA, m) {
  m.impl("gated_activation.out", titer::cuda::gated_activation_out_cuda);
  m.impl("gated_activation_backward", titer::cuda::gated_activation_backward_cuda);
}
