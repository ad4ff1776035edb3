// CPU backend of gated_activation.
#include "gated_activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/library.h>

#include "cpu/gated_activation_vectors.h"
#include "cpu/parallel_rows.h"
#include "tensor_checks.h"

namespace titer::cpu {
namespace {

using ops::GateActivation;

/// No model runs in float16 on a CPU, and none that is supported gates with the erf form of GELU.
bool is_composed(at::ScalarType dtype, GateActivation activation) {
  return dtype == at::kHalf || activation == GateActivation::kGelu;
}

const char* approximation(GateActivation activation) { return activation == GateActivation::kGelu ? "none" : "tanh"; }

SigmoidGate sigmoid_gate(GateActivation activation) {
  return activation == GateActivation::kSilu ? SigmoidGate::kSilu : SigmoidGate::kGeluTanh;
}

at::Tensor activated(const at::Tensor& gate, GateActivation activation) {
  return activation == GateActivation::kSilu ? at::silu(gate) : at::gelu(gate, approximation(activation));
}

at::Tensor& gated_activation_out_cpu(const at::Tensor& gate, const at::Tensor& up, std::string_view name,
                                     at::Tensor& out) {
  const GateActivation activation = gate_activation(name);
  check_gated_activation(gate, up, out);
  if (is_composed(gate.scalar_type(), activation)) return out.copy_(activated(gate, activation) * up);
  with_element_type(gate.scalar_type(), [&]<typename T>(T) {
    const auto rows = gated_rows<T>(gate, up, out);
    parallel_rows(rows.rows, rows.width,
                  [&](int64_t begin, int64_t end) { gate_rows(rows, sigmoid_gate(activation), begin, end); });
  });
  return out;
}

GatedGrads composed_grads(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                          GateActivation activation) {
  const at::Tensor incoming = grad * up;
  const at::Tensor grad_gate = activation == GateActivation::kSilu
                                   ? at::silu_backward(incoming, gate)
                                   : at::gelu_backward(incoming, gate, approximation(activation));
  return {grad_gate, grad * activated(gate, activation)};
}

GatedGrads gated_activation_backward_cpu(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                                         std::string_view name) {
  const GateActivation activation = gate_activation(name);
  check_gated_activation_backward(grad, gate, up);
  if (is_composed(gate.scalar_type(), activation)) return composed_grads(grad, gate, up, activation);
  const GatedGrads results{at::empty(gate.sizes(), gate.options()), at::empty(gate.sizes(), gate.options())};
  const at::Tensor g = with_dense_rows(grad), x = with_dense_rows(gate), y = with_dense_rows(up);
  with_element_type(gate.scalar_type(), [&]<typename T>(T) {
    const auto rows = gated_grad_rows<T>(g, x, y, results);
    parallel_rows(rows.rows, rows.width,
                  [&](int64_t begin, int64_t end) { gate_rows_backward(rows, sigmoid_gate(activation), begin, end); });
  });
  return results;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) {
  m.impl("gated_activation.out", titer::cpu::gated_activation_out_cpu);
  m.impl("gated_activation_backward", titer::cpu::gated_activation_backward_cpu);
}
