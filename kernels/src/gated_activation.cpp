// Schemas, argument checks, meta kernels and C++ entries of gated_activation.
#include "gated_activation.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "tensor_checks.h"

namespace titer {
namespace {

using ops::GateActivation;
using Signature = at::Tensor(const at::Tensor& gate, const at::Tensor& up, std::string_view activation);
using OutSignature = at::Tensor&(const at::Tensor& gate, const at::Tensor& up, std::string_view activation,
                                 at::Tensor& out);
using BackwardSignature = GatedGrads(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                                     std::string_view activation);

constexpr const char* kName = "gated_activation";

void check_inputs(const at::Tensor& gate, const at::Tensor& up) {
  TORCH_CHECK_VALUE(gate.layout() == at::kStrided && gate.dim() == 2,
                    "[gated_activation] gate must be a dense matrix [N, f], got shape ", gate.sizes(),
                    "; flatten the batch dimensions first");
  check_dtype(kName, {gate, "gate"});
  check_like(kName, {up, "up"}, {gate, "gate"});
}

std::string_view name_of(GateActivation activation) {
  switch (activation) {
    case GateActivation::kSilu:
      return "silu";
    case GateActivation::kGelu:
      return "gelu";
    default:
      return "gelu_tanh";
  }
}

at::Tensor& call_out(const at::Tensor& gate, const at::Tensor& up, std::string_view activation, at::Tensor& out) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::gated_activation", "out").typed<OutSignature>();
  return op.call(gate, up, activation, out);
}

/// Without a gradient, on any backend.
at::Tensor into_new(const at::Tensor& gate, const at::Tensor& up, std::string_view activation) {
  at::Tensor out = at::empty(gate.sizes(), gate.options());
  return call_out(with_dense_rows(gate), with_dense_rows(up), activation, out);
}

at::Tensor& out_meta(const at::Tensor& gate, const at::Tensor& up, std::string_view activation, at::Tensor& out) {
  gate_activation(activation);
  check_gated_activation(gate, up, out);
  return out;
}

GatedGrads backward_meta(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                         std::string_view activation) {
  gate_activation(activation);
  check_gated_activation_backward(grad, gate, up);
  return {at::empty(gate.sizes(), gate.options()), at::empty(gate.sizes(), gate.options())};
}

}  // namespace

GateActivation gate_activation(std::string_view name) {
  for (const auto activation : {GateActivation::kSilu, GateActivation::kGelu, GateActivation::kGeluTanh}) {
    if (name == name_of(activation)) return activation;
  }
  TORCH_CHECK_VALUE(false, "[gated_activation] activation must be 'silu', 'gelu' or 'gelu_tanh', got '", name, "'");
}

void check_gated_activation(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& out) {
  check_inputs(gate, up);
  const Argument g{gate, "gate"}, u{up, "up"}, o{out, "out"};
  check_like(kName, o, g);
  check_dense_rows(kName, {g, u, o});
  check_writable(kName, out, {g, u});
}

void check_gated_activation_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up) {
  check_inputs(gate, up);
  check_like(kName, {grad, "grad"}, {gate, "gate"});
}

at::Tensor gated_activation_values(const at::Tensor& gate, const at::Tensor& up, std::string_view activation) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::gated_activation", "").typed<Signature>();
  return op.call(gate, up, activation);
}

GatedGrads gated_activation_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                                     std::string_view activation) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::gated_activation_backward", "").typed<BackwardSignature>();
  return op.call(grad, gate, up, activation);
}

namespace ops {

at::Tensor gated_activation(const at::Tensor& gate, const at::Tensor& up, GateActivation activation) {
  return gated_activation_values(gate, up, name_of(activation));
}

at::Tensor gated_activation_out(const at::Tensor& out, const at::Tensor& gate, const at::Tensor& up,
                                GateActivation activation) {
  at::Tensor written = out;
  call_out(gate, up, name_of(activation), written);
  return written;
}

}  // namespace ops
}  // namespace titer

TORCH_LIBRARY_FRAGMENT(titer, m) {
  m.def("gated_activation(Tensor gate, Tensor up, str activation) -> Tensor");
  m.def("gated_activation.out(Tensor gate, Tensor up, str activation, *, Tensor(a!) out) -> Tensor(a!)");
  m.def(
      "gated_activation_backward(Tensor grad, Tensor gate, Tensor up, str activation) -> "
      "(Tensor grad_gate, Tensor grad_up)");
}

TORCH_LIBRARY_IMPL(titer, CompositeExplicitAutograd, m) { m.impl("gated_activation", titer::into_new); }

TORCH_LIBRARY_IMPL(titer, Meta, m) {
  m.impl("gated_activation.out", titer::out_meta);
  m.impl("gated_activation_backward", titer::backward_meta);
}
