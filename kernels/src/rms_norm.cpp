// Schemas, argument checks, meta kernels and C++ entries of rms_norm.
#include "rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rsqrt.h>
#include <titer/kernels/rms_norm.h>
#include <torch/library.h>

#include "tensor_checks.h"

namespace titer {
namespace {

using Optional = std::optional<at::Tensor>;
using Signature = at::Tensor(const at::Tensor& x, const at::Tensor& weight, double eps, std::string_view scale,
                             const Optional& residual);
using OutSignature = at::Tensor&(const at::Tensor& x, const at::Tensor& weight, double eps, std::string_view scale,
                                 const Optional& residual, at::Tensor& out);
using BackwardSignature = RmsNormGrads(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                       double eps, std::string_view scale, std::array<bool, 2> output_mask);

constexpr const char* kName = "rms_norm";

void check_inputs(const RmsNorm& norm) {
  const auto& [x, weight, eps, scale, residual] = norm;
  TORCH_CHECK_VALUE(x.layout() == at::kStrided && x.dim() == 2 && x.size(1) >= 1,
                    "[rms_norm] x must be a dense matrix [N, d] with d at least 1, got shape ", x.sizes(),
                    "; flatten the batch dimensions first");
  check_dtype(kName, {x, "x"});
  TORCH_CHECK_TYPE(weight.scalar_type() == x.scalar_type(), "[rms_norm] weight must have the dtype of x, ",
                   x.scalar_type(), ", got ", weight.scalar_type());
  TORCH_CHECK_VALUE(weight.layout() == at::kStrided && weight.dim() == 1 && weight.size(0) == x.size(1),
                    "[rms_norm] weight must have shape [", x.size(1), "], the width of x, got ", weight.sizes());
  TORCH_CHECK_VALUE(weight.device() == x.device(), "[rms_norm] weight must be on ", x.device(), " like x, got ",
                    weight.device());
  TORCH_CHECK_VALUE(eps >= 0, "[rms_norm] eps must not be negative, got ", eps);
  TORCH_CHECK_VALUE(scale == "rounded" || scale == "wide" || scale == "offset",
                    "[rms_norm] scale must be 'rounded', 'wide' or 'offset', got '", scale, "'");
  if (residual) check_like(kName, {*residual, "residual"}, {x, "x"});
}

std::string_view name_of(ops::RmsNormScale scale) {
  switch (scale) {
    case ops::RmsNormScale::kRounded:
      return "rounded";
    case ops::RmsNormScale::kWide:
      return "wide";
    default:
      return "offset";
  }
}

at::Tensor& call_out(const at::Tensor& x, const at::Tensor& weight, double eps, std::string_view scale,
                     const Optional& residual, at::Tensor& out) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("titer::rms_norm", "out").typed<OutSignature>();
  return op.call(x, weight, eps, scale, residual, out);
}

/// Without a gradient, on any backend.
at::Tensor rms_norm_into_new(const at::Tensor& x, const at::Tensor& weight, double eps, std::string_view scale,
                             const Optional& residual) {
  at::Tensor out = at::empty(x.sizes(), x.options());
  const Optional dense_residual = residual ? Optional(with_dense_rows(*residual)) : std::nullopt;
  return call_out(with_dense_rows(x), weight, eps, scale, dense_residual, out);
}

at::Tensor& rms_norm_out_meta(const at::Tensor& x, const at::Tensor& weight, double eps, std::string_view scale,
                              const Optional& residual, at::Tensor& out) {
  check_rms_norm({x, weight, eps, scale, residual}, out);
  return out;
}

RmsNormGrads rms_norm_backward_meta(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, double eps,
                                    std::string_view scale, std::array<bool, 2> output_mask) {
  check_rms_norm_backward(grad, {x, weight, eps, scale});
  return {output_mask[0] ? at::empty(x.sizes(), x.options()) : at::Tensor(),
          output_mask[1] ? at::empty(weight.sizes(), weight.options()) : at::Tensor()};
}

}  // namespace

void check_rms_norm(const RmsNorm& norm, const at::Tensor& out) {
  check_inputs(norm);
  const Argument x{norm.x, "x"};
  check_like(kName, {out, "out"}, x);
  check_dense_rows(kName, {x, {out, "out"}});
  check_writable(kName, out, {x});
  if (norm.residual) {
    const Argument residual{*norm.residual, "residual"};
    check_dense_rows(kName, {residual});
    check_writable(kName, out, {residual});
  }
}

void check_rms_norm_backward(const at::Tensor& grad, const RmsNorm& norm) {
  check_inputs(norm);
  check_like(kName, {grad, "grad"}, {norm.x, "x"});
}

at::Tensor rms_norm_grad_weight(const at::Tensor& grad, const RmsNorm& norm) {
  const at::ScalarType wide = norm.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor x = norm.x.to(wide);
  at::Tensor normal = x * at::rsqrt(x.square().mean(1, /*keepdim=*/true) + norm.eps);
  if (norm.scale == "rounded") normal = normal.to(norm.x.scalar_type());
  return normal.mul(grad.to(wide)).sum(0).to(norm.weight.scalar_type());
}

at::Tensor rms_norm_values(const RmsNorm& norm) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("titer::rms_norm", "").typed<Signature>();
  return op.call(norm.x, norm.weight, norm.eps, norm.scale, norm.residual);
}

RmsNormGrads rms_norm_backward(const at::Tensor& grad, const RmsNorm& norm, std::array<bool, 2> output_mask) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::rms_norm_backward", "").typed<BackwardSignature>();
  return op.call(grad, norm.x, norm.weight, norm.eps, norm.scale, output_mask);
}

namespace ops {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, RmsNormScale scale,
                    const Optional& residual) {
  return rms_norm_values({x, weight, eps, name_of(scale), residual});
}

at::Tensor rms_norm_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, double eps,
                        RmsNormScale scale, const Optional& residual) {
  at::Tensor written = out;
  call_out(x, weight, eps, name_of(scale), residual, written);
  return written;
}

}  // namespace ops
}  // namespace titer

TORCH_LIBRARY_FRAGMENT(titer, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps, str scale, Tensor? residual=None) -> Tensor");
  m.def(
      "rms_norm.out(Tensor x, Tensor weight, float eps, str scale, Tensor? residual=None, *, Tensor(a!) out) -> "
      "Tensor(a!)");
  m.def(
      "rms_norm_backward(Tensor grad, Tensor x, Tensor weight, float eps, str scale, bool[2] output_mask) -> "
      "(Tensor grad_x, Tensor grad_weight)");
}

TORCH_LIBRARY_IMPL(titer, CompositeExplicitAutograd, m) { m.impl("rms_norm", titer::rms_norm_into_new); }

TORCH_LIBRARY_IMPL(titer, Meta, m) {
  m.impl("rms_norm.out", titer::rms_norm_out_meta);
  m.impl("rms_norm_backward", titer::rms_norm_backward_meta);
}
