#include "token_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/logsumexp.h>

#include <algorithm>
#include <limits>

#include "embedding.h"

namespace titer {
namespace {

/// linear_cross_entropy with capped logits, composed of stock operations on a few rows at a time.
ops::LinearCrossEntropy capped_cross_entropy(const at::Tensor& hidden, const at::Tensor& lm_head,
                                             const at::Tensor& target, double cap) {
  constexpr int64_t kLogitsBytes = int64_t{16} << 20;
  const int64_t step = std::max<int64_t>(1, kLogitsBytes / (lm_head.size(0) * static_cast<int64_t>(sizeof(float))));
  const at::ScalarType wide = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<at::Tensor> loss, lse, best_other, best_other_index, match;
  for (int64_t row = 0; row < hidden.size(0); row += step) {
    const int64_t count = std::min(step, hidden.size(0) - row);
    const at::Tensor index = target.narrow(0, row, count).unsqueeze(1);
    const at::Tensor scores = soft_cap(at::linear(hidden.narrow(0, row, count), lm_head).to(wide), cap);
    const at::Tensor others = scores.scatter(1, index, -std::numeric_limits<double>::infinity());
    lse.push_back(at::logsumexp(scores, 1));
    loss.push_back(lse.back() - scores.gather(1, index).squeeze(1));
    best_other_index.push_back(others.argmax(1));
    best_other.push_back(others.gather(1, best_other_index.back().unsqueeze(1)).squeeze(1));
    match.push_back(scores.argmax(1).eq(index.squeeze(1)));
  }
  return {at::cat(loss), at::cat(lse), at::cat(best_other), at::cat(best_other_index), at::cat(match)};
}

}  // namespace

ops::LinearCrossEntropy token_losses(const at::Tensor& hidden, const at::Tensor& lm_head, const at::Tensor& target,
                                     std::optional<double> soft_cap) {
  return soft_cap ? capped_cross_entropy(hidden, lm_head, target, *soft_cap)
                  : ops::linear_cross_entropy(hidden, lm_head, target);
}

}  // namespace titer
