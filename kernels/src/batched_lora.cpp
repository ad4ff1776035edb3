// Schemas, argument checks, meta kernels and C++ entries of batched_lora.
#include "batched_lora.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <titer/kernels/batched_lora.h>
#include <torch/library.h>

#include <optional>

#include "tensor_checks.h"

namespace titer {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Signature = at::Tensor(const at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                             const at::Tensor& rows, at::ArrayRef<double> scale);
using InPlaceSignature = at::Tensor&(at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                     const at::Tensor& rows, at::ArrayRef<double> scale);
using ForwardSignature = at::Tensor(at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                    const at::Tensor& rows, at::ArrayRef<double> scale, bool needs_projected);
using BackwardSignature = LoraGrads(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& a,
                                    const at::Tensor& b, const OptionalTensor& projected, const at::Tensor& rows,
                                    at::ArrayRef<double> scale, std::array<bool, 3> output_mask);

constexpr const char* kName = "batched_lora";

void check_matrix(const Argument& x, const char* shape) {
  TORCH_CHECK_VALUE(x.tensor.layout() == at::kStrided && x.tensor.dim() == 2 && x.tensor.size(1) >= 1,
                    "[batched_lora] ", x.name, " must be a dense matrix ", shape, " of width 1 at least, got shape ",
                    x.tensor.sizes(), "; flatten the batch dimensions first");
}

void check_adapters(const LoraInputs& inputs, int64_t d_out) {
  const auto& [x, a, b, rows, scale] = inputs;
  TORCH_CHECK_VALUE(
      a.layout() == at::kStrided && a.dim() == 3 && a.size(0) >= 1 && a.size(1) >= 1 && a.size(2) == x.size(1),
      "[batched_lora] a must have shape [K, r, ", x.size(1), "], as wide as x, with K and r at least 1, got ",
      a.sizes());
  TORCH_CHECK_VALUE(b.layout() == at::kStrided && b.dim() == 3 && b.size(0) == a.size(0) && b.size(1) == d_out &&
                        b.size(2) == a.size(1),
                    "[batched_lora] b must have shape [", a.size(0), ", ", d_out, ", ", a.size(1),
                    "], runs and rank of a and the width of base, got ", b.sizes());
  for (const Argument& adapter : {Argument{a, "a"}, Argument{b, "b"}}) {
    const at::ScalarType dtype = lora_accumulator(x.scalar_type());
    TORCH_CHECK_TYPE(adapter.tensor.scalar_type() == dtype, "[batched_lora] ", adapter.name, " must be ", dtype,
                     " where x is ", x.scalar_type(), ", got ", adapter.tensor.scalar_type());
    TORCH_CHECK_VALUE(adapter.tensor.device() == x.device(), "[batched_lora] ", adapter.name, " must be on ",
                      x.device(), " like x, got ", adapter.tensor.device());
  }
}

void check_runs(const LoraInputs& inputs) {
  const at::Tensor& rows = inputs.rows;
  const int64_t runs = inputs.a.size(0);
  TORCH_CHECK_TYPE(rows.scalar_type() == at::kLong, "[batched_lora] rows must be int64, got ", rows.scalar_type());
  TORCH_CHECK_VALUE(rows.dim() == 1 && rows.size(0) == runs &&
                        (rows.is_cpu() || (rows.is_meta() && inputs.x.is_meta())) && rows.is_contiguous(),
                    "[batched_lora] rows must be a contiguous vector of ", runs,
                    " entries on the CPU, one per run of a, got shape ", rows.sizes(), " on ", rows.device());
  TORCH_CHECK_VALUE(static_cast<int64_t>(inputs.scale.size()) == runs, "[batched_lora] scale must have ", runs,
                    " entries, one per run of a, got ", inputs.scale.size());
  if (rows.is_meta()) return;
  int64_t total = 0;
  for (int64_t k = 0; k < runs; ++k) {
    const int64_t count = rows.const_data_ptr<int64_t>()[k];
    TORCH_CHECK_VALUE(count >= 0 && count <= inputs.x.size(0), "[batched_lora] rows[", k, "] must be in [0, ",
                      inputs.x.size(0), "], got ", count);
    total += count;
  }
  TORCH_CHECK_VALUE(total == inputs.x.size(0), "[batched_lora] rows must add up to the rows of x, ", inputs.x.size(0),
                    ", got ", total);
}

/// `result` has the shape of the op's result.
void check_inputs(const Argument& result, const LoraInputs& inputs) {
  const Argument x{inputs.x, "x"};
  check_matrix(result, "[R, d_out]");
  check_dtype(kName, result);
  check_matrix(x, "[R, d_in]");
  TORCH_CHECK_VALUE(inputs.x.size(0) == result.tensor.size(0), "[batched_lora] x must have the rows of ", result.name,
                    ", ", result.tensor.size(0), ", got ", inputs.x.size(0));
  TORCH_CHECK_TYPE(inputs.x.scalar_type() == result.tensor.scalar_type(), "[batched_lora] x must have the dtype of ",
                   result.name, ", ", result.tensor.scalar_type(), ", got ", inputs.x.scalar_type());
  TORCH_CHECK_VALUE(inputs.x.device() == result.tensor.device(), "[batched_lora] x must be on ", result.tensor.device(),
                    " like ", result.name, ", got ", inputs.x.device());
  check_adapters(inputs, result.tensor.size(1));
  check_runs(inputs);
}

/// Without a gradient, on any backend.
at::Tensor batched_lora_values(const at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                               const at::Tensor& rows, at::ArrayRef<double> scale) {
  at::Tensor out = base.clone(at::MemoryFormat::Contiguous);
  batched_lora_forward_(out, {x, a, b, rows, scale}, /*needs_projected=*/false);
  return out;
}

at::Tensor& batched_lora_values_(at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                 const at::Tensor& rows, at::ArrayRef<double> scale) {
  batched_lora_forward_(base, {x, a, b, rows, scale}, /*needs_projected=*/false);
  return base;
}

at::Tensor batched_lora_forward_meta(at::Tensor& base, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b,
                                     const at::Tensor& rows, at::ArrayRef<double> scale, bool needs_projected) {
  check_batched_lora(base, {x, a, b, rows, scale});
  return needs_projected ? at::empty({x.size(0), a.size(1)}, a.options()) : at::Tensor();
}

LoraGrads batched_lora_backward_meta(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& a,
                                     const at::Tensor& b, const OptionalTensor& projected, const at::Tensor& rows,
                                     at::ArrayRef<double> scale, std::array<bool, 3> output_mask) {
  const LoraInputs inputs{x, a, b, rows, scale};
  check_batched_lora_backward(grad, inputs, projected.value_or(at::Tensor()), output_mask);
  return empty_lora_grads(inputs, output_mask);
}

}  // namespace

LoraGrads empty_lora_grads(const LoraInputs& inputs, std::array<bool, 3> output_mask) {
  const auto like = [](const at::Tensor& t, bool is_wanted) {
    return is_wanted ? at::empty(t.sizes(), t.options()) : at::Tensor();
  };
  return {like(inputs.x, output_mask[0]), like(inputs.a, output_mask[1]), like(inputs.b, output_mask[2])};
}

at::ScalarType lora_accumulator(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

void check_batched_lora(const at::Tensor& base, const LoraInputs& inputs) {
  const Argument result{base, "base"};
  check_inputs(result, inputs);
  check_dense_rows(kName, {result});
  check_disjoint(kName, result, {{inputs.x, "x"}, {inputs.a, "a"}, {inputs.b, "b"}});
}

void check_batched_lora_backward(const at::Tensor& grad, const LoraInputs& inputs, const at::Tensor& projected,
                                 std::array<bool, 3> output_mask) {
  check_inputs({grad, "grad"}, inputs);
  if (!output_mask[2]) return;
  TORCH_CHECK_VALUE(projected.defined() && projected.dim() == 2 && projected.size(0) == inputs.x.size(0) &&
                        projected.size(1) == inputs.a.size(1) && projected.scalar_type() == inputs.a.scalar_type() &&
                        projected.device() == inputs.x.device(),
                    "[batched_lora] projected must be ", inputs.a.scalar_type(), " of shape [", inputs.x.size(0), ", ",
                    inputs.a.size(1),
                    "] where the gradient of b is asked for; run the forward op with needs_projected");
}

at::Tensor batched_lora_forward_(at::Tensor base, const LoraInputs& inputs, bool needs_projected) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::batched_lora_forward_", "").typed<ForwardSignature>();
  return op.call(base, inputs.x, inputs.a, inputs.b, inputs.rows, inputs.scale, needs_projected);
}

LoraGrads batched_lora_backward(const at::Tensor& grad, const LoraInputs& inputs, const at::Tensor& projected,
                                std::array<bool, 3> output_mask) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::batched_lora_backward", "").typed<BackwardSignature>();
  return op.call(grad, inputs.x, inputs.a, inputs.b, projected.defined() ? OptionalTensor(projected) : std::nullopt,
                 inputs.rows, inputs.scale, output_mask);
}

namespace ops {

at::Tensor batched_lora(const at::Tensor& base, const at::Tensor& x, const LoraBank& bank) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("titer::batched_lora", "").typed<Signature>();
  return op.call(base, x, bank.a, bank.b, bank.rows, bank.scale);
}

at::Tensor batched_lora_(const at::Tensor& base, const at::Tensor& x, const LoraBank& bank) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::batched_lora_", "").typed<InPlaceSignature>();
  at::Tensor written = base;
  return op.call(written, x, bank.a, bank.b, bank.rows, bank.scale);
}

}  // namespace ops
}  // namespace titer

// batched_lora and batched_lora_ are the operation; forward_ and backward are what their autograd formula is made of.
TORCH_LIBRARY_FRAGMENT(titer, m) {
  m.def("batched_lora(Tensor base, Tensor x, Tensor a, Tensor b, Tensor rows, float[] scale) -> Tensor");
  m.def("batched_lora_(Tensor(a!) base, Tensor x, Tensor a, Tensor b, Tensor rows, float[] scale) -> Tensor(a!)");
  m.def(
      "batched_lora_forward_(Tensor(a!) base, Tensor x, Tensor a, Tensor b, Tensor rows, float[] scale, "
      "bool needs_projected) -> Tensor projected");
  m.def(
      "batched_lora_backward(Tensor grad, Tensor x, Tensor a, Tensor b, Tensor? projected, Tensor rows, "
      "float[] scale, bool[3] output_mask) -> (Tensor grad_x, Tensor grad_a, Tensor grad_b)");
}

TORCH_LIBRARY_IMPL(titer, CompositeExplicitAutograd, m) {
  m.impl("batched_lora", titer::batched_lora_values);
  m.impl("batched_lora_", titer::batched_lora_values_);
}

TORCH_LIBRARY_IMPL(titer, Meta, m) {
  m.impl("batched_lora_forward_", titer::batched_lora_forward_meta);
  m.impl("batched_lora_backward", titer::batched_lora_backward_meta);
}
