// Schemas, argument checks, meta kernel and C++ entries of rope.
#include "rope.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <titer/kernels/rope.h>
#include <torch/library.h>

#include "tensor_checks.h"

namespace titer {
namespace {

using Signature = at::Tensor(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
using OutSignature = at::Tensor&(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, at::Tensor& out);

constexpr const char* kName = "rope";

void check_table(const at::Tensor& table, const char* name, const at::Tensor& x) {
  TORCH_CHECK_TYPE(table.scalar_type() == x.scalar_type() || table.scalar_type() == at::kFloat, "[rope] ", name,
                   " must have the dtype of x, ", x.scalar_type(), ", or float32, got ", table.scalar_type());
  TORCH_CHECK_VALUE(table.layout() == at::kStrided && table.dim() == 2 && table.size(0) == x.size(0) &&
                        2 * table.size(1) <= x.size(-1),
                    "[rope] ", name, " must have shape [", x.size(0), ", r/2] with r at most ", x.size(-1),
                    ", one row per row of x, got ", table.sizes());
  TORCH_CHECK_VALUE(table.device() == x.device(), "[rope] ", name, " must be on ", x.device(), " like x, got ",
                    table.device());
}

/// Without a gradient, on any backend.
at::Tensor rope_values(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return ops::rope_out(at::empty(x.sizes(), x.options()), with_dense_rows(x), cos, sin);
}

at::Tensor& rope_out_meta(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, at::Tensor& out) {
  check_rope(x, cos, sin, out);
  return out;
}

}  // namespace

void check_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& out) {
  TORCH_CHECK_VALUE(x.layout() == at::kStrided && x.dim() >= 2 && x.dim() <= 4,
                    "[rope] x must be dense, [N, hd], [N, H, hd] or [N, Hkv, G, hd], got shape ", x.sizes());
  check_dtype(kName, {x, "x"});
  check_table(cos, "cos", x);
  check_table(sin, "sin", x);
  TORCH_CHECK_VALUE(cos.size(1) == sin.size(1) && cos.scalar_type() == sin.scalar_type(),
                    "[rope] cos and sin must have one shape and dtype, got ", cos.sizes(), " ", cos.scalar_type(),
                    " and ", sin.sizes(), " ", sin.scalar_type());
  check_like(kName, {out, "out"}, {x, "x"});
  check_dense_rows(kName, {{x, "x"}, {out, "out"}});
  check_writable(kName, out, {{x, "x"}});
}

namespace ops {

at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("titer::rope", "").typed<Signature>();
  return op.call(x, cos, sin);
}

at::Tensor rope_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("titer::rope", "out").typed<OutSignature>();
  at::Tensor written = out;
  op.call(x, cos, sin, written);
  return written;
}

}  // namespace ops
}  // namespace titer

TORCH_LIBRARY_FRAGMENT(titer, m) {
  m.def("rope(Tensor x, Tensor cos, Tensor sin) -> Tensor");
  m.def("rope.out(Tensor x, Tensor cos, Tensor sin, *, Tensor(a!) out) -> Tensor(a!)");
}

TORCH_LIBRARY_IMPL(titer, CompositeExplicitAutograd, m) { m.impl("rope", titer::rope_values); }

TORCH_LIBRARY_IMPL(titer, Meta, m) { m.impl("rope.out", titer::rope_out_meta); }
