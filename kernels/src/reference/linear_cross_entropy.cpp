#include "reference/linear_cross_entropy.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/scatter.h>

#include <limits>

namespace titer::reference {

ops::LinearCrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                             const at::Tensor& target) {
  const at::Tensor logits = at::linear(hidden, weight);
  const at::Tensor column = target.unsqueeze(1);
  const at::Tensor loss = at::neg(at::gather(at::log_softmax(logits, 1), 1, column).squeeze(1));
  // argmax, unlike max and topk, promises the first of equal maxima.
  const at::Tensor other_index =
      at::argmax(at::scatter(logits, 1, column, -std::numeric_limits<double>::infinity()), 1, /*keepdim=*/true);
  const at::Tensor best_other = at::gather(logits, 1, other_index).squeeze(1);
  return {loss, at::logsumexp(logits, 1), best_other, other_index.squeeze(1), at::eq(at::argmax(logits, 1), target)};
}

}  // namespace titer::reference
