// What the backends and the autograd formula of linear_cross_entropy share.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

namespace titer {

/// loss, lse, best_other, best_other_index, match (see the public header) and others_mean: [R, d] sum over the tokens
/// other than the target of probability times row of the weight, undefined unless asked for. It is the part of the
/// gradient of hidden that costs a product over the vocabulary.
using LinearCrossEntropyOutputs = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Arguments of the backward op: incoming gradients [R], undefined ones count as zero, and what the forward pass saved.
struct LinearCrossEntropyBackward {
  at::Tensor grad_loss, grad_lse, grad_best_other;
  at::Tensor hidden, weight, target;
  at::Tensor loss, lse, best_other_index;
  at::Tensor others_mean;  ///< undefined where the gradient of hidden is not asked for
  std::array<bool, 2> output_mask;
};
using LinearCrossEntropyInputGrads = std::tuple<at::Tensor, at::Tensor>;

using LinearCrossEntropyForwardSignature = LinearCrossEntropyOutputs(const at::Tensor& hidden, const at::Tensor& weight,
                                                                     const at::Tensor& target, bool needs_others_mean);
using LinearCrossEntropyBackwardSignature = LinearCrossEntropyInputGrads(
    const std::optional<at::Tensor>& grad_loss, const std::optional<at::Tensor>& grad_lse,
    const std::optional<at::Tensor>& grad_best_other, const at::Tensor& hidden, const at::Tensor& weight,
    const at::Tensor& target, const at::Tensor& loss, const at::Tensor& lse, const at::Tensor& best_other_index,
    const std::optional<at::Tensor>& others_mean, std::array<bool, 2> output_mask);

/// dtype of loss, lse and best_other, and of every sum: float64 for float64, otherwise float32.
at::ScalarType linear_cross_entropy_accumulator(at::ScalarType dtype);

/// Every backend calls this, because torch.ops.titer.* reaches the backends without passing the C++ entry. Checks
/// shapes, dtypes and devices; values of `target` are the backend's to check, where they can be read.
void check_linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target);
void check_linear_cross_entropy_backward(const LinearCrossEntropyBackward& arguments);

/// Uninitialised outputs, on the device of `hidden`.
LinearCrossEntropyOutputs empty_linear_cross_entropy_outputs(const at::Tensor& hidden, bool needs_others_mean);

/// The gradient of hidden on any device: everything expensive is in others_mean.
at::Tensor linear_cross_entropy_grad_hidden(const LinearCrossEntropyBackward& arguments);

/// Factor of the softmax in the gradient of the logits, grad_loss + grad_lse.
at::Tensor linear_cross_entropy_softmax_grad(const LinearCrossEntropyBackward& arguments);

/// Both ops through the dispatcher.
LinearCrossEntropyOutputs linear_cross_entropy_forward(const at::Tensor& hidden, const at::Tensor& weight,
                                                       const at::Tensor& target, bool needs_others_mean);
LinearCrossEntropyInputGrads linear_cross_entropy_backward(const LinearCrossEntropyBackward& arguments);

}  // namespace titer
