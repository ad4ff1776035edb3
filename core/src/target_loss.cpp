#include <titer/core/target_loss.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/logsumexp.h>
#include <c10/util/Exception.h>

#include <cmath>

#include "token_losses.h"

namespace titer {

TargetLoss target_loss(const at::Tensor& hidden, const at::Tensor& lm_head, const at::Tensor& target_ids,
                       const TargetObjective& objective, std::optional<double> soft_cap) {
  const int64_t length = target_ids.size(0);
  const int64_t batch = hidden.size(0) / length;
  const auto [loss, lse, best_other, best_other_index, match] =
      token_losses(hidden, lm_head, target_ids.repeat({batch}), soft_cap);
  const auto per_answer = [&](const at::Tensor& x) { return x.view({batch, length}); };
  const at::Tensor matches = per_answer(match).all(1);
  switch (objective.kind) {
    case TargetObjective::Kind::kCrossEntropy:
      return {per_answer(loss).mean(1), matches};
    case TargetObjective::Kind::kMellowmax: {
      const double alpha = objective.mellowmax_alpha;
      const at::Tensor negated = per_answer(loss - lse);  // minus the target's logit
      return {(at::logsumexp(negated * alpha, 1) - std::log(static_cast<double>(length))) / alpha, matches};
    }
    case TargetObjective::Kind::kCarliniWagner:
      return {per_answer(best_other - lse + loss).clamp_min(-objective.cw_margin).mean(1), matches};
  }
  TORCH_INTERNAL_ASSERT(false, "unknown objective");
}

}  // namespace titer
