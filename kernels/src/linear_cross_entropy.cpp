// Schemas, argument checks, meta kernels and C++ entry of linear_cross_entropy.
#include "linear_cross_entropy.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/zeros_like.h>
#include <titer/kernels/linear_cross_entropy.h>
#include <torch/library.h>

#include <cstdint>
#include <limits>

namespace titer {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using PublicOutputs = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using PublicSignature = PublicOutputs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target);

OptionalTensor as_optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

void check_rows(const at::Tensor& rows, const char* name, at::ScalarType dtype, const at::Tensor& hidden) {
  TORCH_CHECK_TYPE(rows.scalar_type() == dtype, "[linear_cross_entropy] ", name, " must be ", dtype, ", got ",
                   rows.scalar_type());
  TORCH_CHECK_VALUE(rows.dim() == 1 && rows.size(0) == hidden.size(0), "[linear_cross_entropy] ", name,
                    " must have shape [", hidden.size(0), "], one entry per row of hidden, got ", rows.sizes());
  TORCH_CHECK_VALUE(rows.device() == hidden.device(), "[linear_cross_entropy] ", name, " must be on ", hidden.device(),
                    " like hidden, got ", rows.device());
}

/// Without a gradient to prepare, on any backend.
PublicOutputs linear_cross_entropy_values(const at::Tensor& hidden, const at::Tensor& weight,
                                          const at::Tensor& target) {
  auto [loss, lse, best_other, best_other_index, match, unused] =
      linear_cross_entropy_forward(hidden, weight, target, /*needs_others_mean=*/false);
  return {std::move(loss), std::move(lse), std::move(best_other), std::move(best_other_index), std::move(match)};
}

LinearCrossEntropyOutputs linear_cross_entropy_forward_meta(const at::Tensor& hidden, const at::Tensor& weight,
                                                            const at::Tensor& target, bool needs_others_mean) {
  check_linear_cross_entropy(hidden, weight, target);
  return empty_linear_cross_entropy_outputs(hidden, needs_others_mean);
}

LinearCrossEntropyInputGrads linear_cross_entropy_backward_meta(
    const OptionalTensor& grad_loss, const OptionalTensor& grad_lse, const OptionalTensor& grad_best_other,
    const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target, const at::Tensor& loss,
    const at::Tensor& lse, const at::Tensor& best_other_index, const OptionalTensor& others_mean,
    std::array<bool, 2> output_mask) {
  const at::Tensor none;
  check_linear_cross_entropy_backward({grad_loss.value_or(none), grad_lse.value_or(none),
                                       grad_best_other.value_or(none), hidden, weight, target, loss, lse,
                                       best_other_index, others_mean.value_or(none), output_mask});
  return {output_mask[0] ? at::empty_like(hidden, at::MemoryFormat::Contiguous) : at::Tensor(),
          output_mask[1] ? at::empty_like(weight, at::MemoryFormat::Contiguous) : at::Tensor()};
}

}  // namespace

at::ScalarType linear_cross_entropy_accumulator(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

void check_linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target) {
  const auto is_matrix = [](const at::Tensor& t) { return t.layout() == at::kStrided && t.dim() == 2; };
  TORCH_CHECK_VALUE(is_matrix(hidden), "[linear_cross_entropy] hidden must be a dense matrix [R, d], got shape ",
                    hidden.sizes(), "; flatten the batch dimensions first");
  TORCH_CHECK_VALUE(is_matrix(weight), "[linear_cross_entropy] weight must be a dense matrix [V, d], got shape ",
                    weight.sizes());
  const at::ScalarType dtype = hidden.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf || dtype == at::kDouble,
                   "[linear_cross_entropy] hidden must be float32, bfloat16, float16 or float64, got ", dtype);
  TORCH_CHECK_TYPE(weight.scalar_type() == dtype, "[linear_cross_entropy] weight must have the dtype of hidden, ",
                   dtype, ", got ", weight.scalar_type());
  TORCH_CHECK_VALUE(weight.device() == hidden.device(), "[linear_cross_entropy] weight must be on ", hidden.device(),
                    " like hidden, got ", weight.device());
  TORCH_CHECK_VALUE(hidden.size(1) >= 1 && weight.size(1) == hidden.size(1),
                    "[linear_cross_entropy] hidden [R, d] and weight [V, d] must share d >= 1, got ", hidden.sizes(),
                    " and ", weight.sizes());
  TORCH_CHECK_VALUE(weight.size(0) >= 2 && weight.size(0) <= std::numeric_limits<int32_t>::max(),
                    "[linear_cross_entropy] weight must have between 2 and 2^31 - 1 rows, got ", weight.size(0));
  TORCH_CHECK_VALUE(
      (weight.stride(1) == 1 || weight.size(1) == 1) && weight.stride(0) >= weight.size(1),
      "[linear_cross_entropy] weight must have contiguous rows, because it is read in place, got strides ",
      weight.strides(), "; call .contiguous()");
  check_rows(target, "target", at::kLong, hidden);
}

void check_linear_cross_entropy_backward(const LinearCrossEntropyBackward& arguments) {
  const at::Tensor& hidden = arguments.hidden;
  check_linear_cross_entropy(hidden, arguments.weight, arguments.target);
  const at::ScalarType accumulator = linear_cross_entropy_accumulator(hidden.scalar_type());
  check_rows(arguments.loss, "loss", accumulator, hidden);
  check_rows(arguments.lse, "lse", accumulator, hidden);
  check_rows(arguments.best_other_index, "best_other_index", at::kLong, hidden);
  const auto check_grad = [&](const at::Tensor& grad, const char* name) {
    if (grad.defined()) check_rows(grad, name, accumulator, hidden);
  };
  check_grad(arguments.grad_loss, "grad_loss");
  check_grad(arguments.grad_lse, "grad_lse");
  check_grad(arguments.grad_best_other, "grad_best_other");
  if (arguments.output_mask[0]) {
    const at::Tensor& mean = arguments.others_mean;
    TORCH_CHECK_VALUE(mean.defined() && mean.sizes() == hidden.sizes() && mean.scalar_type() == accumulator &&
                          mean.device() == hidden.device(),
                      "[linear_cross_entropy] others_mean must be ", accumulator, " of shape ", hidden.sizes(),
                      " where the gradient of hidden is asked for; run the forward op with needs_others_mean");
  }
}

LinearCrossEntropyOutputs empty_linear_cross_entropy_outputs(const at::Tensor& hidden, bool needs_others_mean) {
  const at::ScalarType accumulator = linear_cross_entropy_accumulator(hidden.scalar_type());
  const auto empty = [&](at::IntArrayRef shape, at::ScalarType dtype) {
    return at::empty(shape, hidden.options().dtype(dtype));
  };
  const int64_t num_rows = hidden.size(0);
  return {empty({num_rows}, accumulator), empty({num_rows}, accumulator),
          empty({num_rows}, accumulator), empty({num_rows}, at::kLong),
          empty({num_rows}, at::kBool),   needs_others_mean ? empty(hidden.sizes(), accumulator) : at::Tensor()};
}

at::Tensor linear_cross_entropy_softmax_grad(const LinearCrossEntropyBackward& arguments) {
  const at::Tensor& a = arguments.grad_loss;
  const at::Tensor& b = arguments.grad_lse;
  if (a.defined() && b.defined()) return at::add(a, b);
  return a.defined() ? a : b.defined() ? b : at::zeros_like(arguments.lse);
}

at::Tensor linear_cross_entropy_grad_hidden(const LinearCrossEntropyBackward& arguments) {
  const auto add_rows = [&](at::Tensor& sum, const at::Tensor& tokens, const at::Tensor& factors) {
    sum.addcmul_(at::index_select(arguments.weight, 0, tokens).to(sum.scalar_type()), factors.unsqueeze(1));
  };
  at::Tensor sum = at::mul(arguments.others_mean, linear_cross_entropy_softmax_grad(arguments).unsqueeze(1));
  // softmax - 1 at the target is -(1 - exp(-loss)), without cancellation for small losses.
  const at::Tensor minus_loss = at::neg(arguments.loss);
  if (arguments.grad_loss.defined())
    add_rows(sum, arguments.target, at::mul(arguments.grad_loss, at::expm1(minus_loss)));
  if (arguments.grad_lse.defined()) add_rows(sum, arguments.target, at::mul(arguments.grad_lse, at::exp(minus_loss)));
  if (arguments.grad_best_other.defined()) add_rows(sum, arguments.best_other_index, arguments.grad_best_other);
  return sum.to(arguments.hidden.scalar_type());
}

LinearCrossEntropyOutputs linear_cross_entropy_forward(const at::Tensor& hidden, const at::Tensor& weight,
                                                       const at::Tensor& target, bool needs_others_mean) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("titer::linear_cross_entropy_forward", "")
                             .typed<LinearCrossEntropyForwardSignature>();
  return op.call(hidden, weight, target, needs_others_mean);
}

LinearCrossEntropyInputGrads linear_cross_entropy_backward(const LinearCrossEntropyBackward& arguments) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("titer::linear_cross_entropy_backward", "")
                             .typed<LinearCrossEntropyBackwardSignature>();
  return op.call(as_optional(arguments.grad_loss), as_optional(arguments.grad_lse),
                 as_optional(arguments.grad_best_other), arguments.hidden, arguments.weight, arguments.target,
                 arguments.loss, arguments.lse, arguments.best_other_index, as_optional(arguments.others_mean),
                 arguments.output_mask);
}

namespace ops {

LinearCrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("titer::linear_cross_entropy", "").typed<PublicSignature>();
  auto [loss, lse, best_other, best_other_index, match] = op.call(hidden, weight, target);
  return {std::move(loss), std::move(lse), std::move(best_other), std::move(best_other_index), std::move(match)};
}

}  // namespace ops
}  // namespace titer

// linear_cross_entropy is the operation; the other two are what its autograd formula is made of.
TORCH_LIBRARY_FRAGMENT(titer, m) {
  m.def(
      "linear_cross_entropy(Tensor hidden, Tensor weight, Tensor target) -> "
      "(Tensor loss, Tensor lse, Tensor best_other, Tensor best_other_index, Tensor match)");
  m.def(
      "linear_cross_entropy_forward(Tensor hidden, Tensor weight, Tensor target, bool needs_others_mean) -> "
      "(Tensor loss, Tensor lse, Tensor best_other, Tensor best_other_index, Tensor match, Tensor others_mean)");
  m.def(
      "linear_cross_entropy_backward(Tensor? grad_loss, Tensor? grad_lse, Tensor? grad_best_other, Tensor hidden, "
      "Tensor weight, Tensor target, Tensor loss, Tensor lse, Tensor best_other_index, Tensor? others_mean, "
      "bool[2] output_mask) -> (Tensor grad_hidden, Tensor grad_weight)");
}

TORCH_LIBRARY_IMPL(titer, CompositeExplicitAutograd, m) {
  m.impl("linear_cross_entropy", titer::linear_cross_entropy_values);
}

TORCH_LIBRARY_IMPL(titer, Meta, m) {
  m.impl("linear_cross_entropy_forward", titer::linear_cross_entropy_forward_meta);
  m.impl("linear_cross_entropy_backward", titer::linear_cross_entropy_backward_meta);
}
