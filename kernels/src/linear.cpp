// Schemas, argument checks, meta kernel and C++ entries of linear.
#include "linear.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <titer/kernels/linear.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "tensor_checks.h"

namespace titer {
namespace {

using Optional = std::optional<at::Tensor>;
using Signature = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const Optional& bias,
                             const Optional& residual);
using OutSignature = at::Tensor&(const at::Tensor& x, const at::Tensor& weight, const Optional& bias,
                                 const Optional& residual, at::Tensor& out);

constexpr const char* kName = "linear";

void check_part(const Argument& part, const at::Tensor& x, at::IntArrayRef shape) {
  const at::Tensor& t = part.tensor;
  TORCH_CHECK_VALUE(t.layout() == at::kStrided && t.sizes() == shape, "[linear] ", part.name, " must have shape ",
                    shape, ", got ", t.sizes());
  TORCH_CHECK_TYPE(t.scalar_type() == x.scalar_type(), "[linear] ", part.name, " must have the dtype of x, ",
                   x.scalar_type(), ", got ", t.scalar_type());
  TORCH_CHECK_VALUE(t.device() == x.device(), "[linear] ", part.name, " must be on ", x.device(), " like x, got ",
                    t.device());
}

at::Tensor& call_out(const LinearInputs& inputs, at::Tensor& out) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("titer::linear", "out").typed<OutSignature>();
  return op.call(inputs.x, inputs.weight, inputs.bias, inputs.residual, out);
}

/// On any backend.
at::Tensor into_new(const at::Tensor& x, const at::Tensor& weight, const Optional& bias, const Optional& residual) {
  TORCH_CHECK_VALUE(x.dim() == 2 && weight.dim() == 2,
                    "[linear] x and weight must be matrices [M, k] and [n, k], got shapes ", x.sizes(), " and ",
                    weight.sizes());
  at::Tensor out = at::empty({x.size(0), weight.size(0)}, x.options());
  const at::Tensor dense_x = with_dense_rows(x);
  const Optional dense_residual = residual ? Optional(with_dense_rows(*residual)) : std::nullopt;
  return call_out({dense_x, weight, bias, dense_residual}, out);
}

at::Tensor& out_meta(const at::Tensor& x, const at::Tensor& weight, const Optional& bias, const Optional& residual,
                     at::Tensor& out) {
  check_linear({x, weight, bias, residual}, out);
  return out;
}

}  // namespace

void check_linear(const LinearInputs& inputs, const at::Tensor& out) {
  const auto& [x, weight, bias, residual] = inputs;
  TORCH_CHECK_VALUE(x.layout() == at::kStrided && x.dim() == 2, "[linear] x must be a dense matrix [M, k], got shape ",
                    x.sizes());
  check_dtype(kName, {x, "x"});
  TORCH_CHECK_VALUE(weight.layout() == at::kStrided && weight.dim() == 2 && weight.size(1) == x.size(1),
                    "[linear] weight must have shape [n, ", x.size(1), "], rows of the width of x, got ",
                    weight.sizes());
  check_part({weight, "weight"}, x, weight.sizes());
  if (bias) check_part({*bias, "bias"}, x, {weight.size(0)});
  if (residual) check_part({*residual, "residual"}, x, {x.size(0), weight.size(0)});
  check_part({out, "out"}, x, {x.size(0), weight.size(0)});
  check_dense_rows(kName, {{x, "x"}, {out, "out"}});
  check_disjoint(kName, {out, "out"}, {{x, "x"}, {weight, "weight"}});
  if (bias) check_disjoint(kName, {out, "out"}, {{*bias, "bias"}});
  if (residual) {
    check_dense_rows(kName, {{*residual, "residual"}});
    check_writable(kName, out, {{*residual, "residual"}});
  }
}

void linear_composed(const LinearInputs& inputs, at::Tensor& out) {
  const at::Tensor right = inputs.weight.t();
  if (inputs.residual && inputs.bias) {
    // A bias first joins the product, whose rounding is finer than the residual's.
    at::add_out(out, at::addmm(*inputs.bias, inputs.x, right), *inputs.residual);
  } else if (inputs.residual) {
    at::addmm_out(out, *inputs.residual, inputs.x, right);
  } else if (inputs.bias) {
    at::addmm_out(out, *inputs.bias, inputs.x, right);
  } else {
    at::mm_out(out, inputs.x, right);
  }
}

namespace ops {

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const Optional& bias, const Optional& residual) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("titer::linear", "").typed<Signature>();
  return op.call(x, weight, bias, residual);
}

at::Tensor linear_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, const Optional& bias,
                      const Optional& residual) {
  at::Tensor written = out;
  call_out({x, weight, bias, residual}, written);
  return written;
}

}  // namespace ops
}  // namespace titer

TORCH_LIBRARY_FRAGMENT(titer, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias=None, Tensor? residual=None) -> Tensor");
  m.def(
      "linear.out(Tensor x, Tensor weight, Tensor? bias=None, Tensor? residual=None, *, Tensor(a!) out) -> Tensor(a!)");
}

TORCH_LIBRARY_IMPL(titer, CompositeExplicitAutograd, m) { m.impl("linear", titer::into_new); }

TORCH_LIBRARY_IMPL(titer, Meta, m) { m.impl("linear.out", titer::out_meta); }

// Differentiating them raises "the derivative for 'titer::linear' is not implemented".
TORCH_LIBRARY_IMPL(titer, Autograd, m) {
  m.impl("linear", torch::autograd::autogradNotImplementedFallback());
  m.impl("linear.out", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(titer, ADInplaceOrView, m) {
  m.impl("linear.out", torch::autograd::autogradNotImplementedInplaceOrViewFallback());
}
