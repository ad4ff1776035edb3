#include <titer/core/session.h>

#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <titer/core/candidate_scorer.h>

#include <cmath>

#include "pass_guard.h"
#include "session_checks.h"

namespace titer {

Access ModelSystem::access() const {
  return Access::kText | Access::kTopLogProbs | Access::kTargetLoss | Access::kLogProbs | Access::kGradients |
         Access::kPrefill;
}

std::unique_ptr<Session> ModelSystem::open(const Prompt& prompt, const SessionOptions& options) const {
  return std::make_unique<CandidateScorer>(model_, prompt, options);
}

void check_prompt(const ModelConfig& config, const Prompt& prompt, const SessionOptions& options) {
  TORCH_CHECK_VALUE(!options.batch_size || *options.batch_size >= 1, "[session] batch_size must be at least 1, got ",
                    *options.batch_size);
  check_length(config, prompt.length(), "session");
  for (const auto* ids : {&prompt.before_ids(), &prompt.slot_ids(), &prompt.after_ids(), &prompt.target_ids()})
    check_ids(config, at::tensor(*ids, at::kLong), "session");
}

at::Tensor check_slot_ids(const ModelConfig& config, const Prompt& prompt, const at::Tensor& ids) {
  const auto slot_length = static_cast<int64_t>(prompt.slot_ids().size());
  TORCH_CHECK_VALUE(ids.dim() == 1 && ids.size(0) == slot_length, "[session] slot ids must have shape [", slot_length,
                    "], the length of the opened slot, got ", ids.sizes());
  check_ids(config, ids, "session");
  return ids.to(at::kCPU).contiguous();
}

at::Tensor check_candidates(const ModelConfig& config, const Prompt& prompt, const at::Tensor& candidates) {
  const auto slot_length = static_cast<int64_t>(prompt.slot_ids().size());
  TORCH_CHECK_VALUE(candidates.dim() == 2 && candidates.size(1) == slot_length,
                    "[session] candidates must have shape [B, ", slot_length,
                    "], rows of the length of the opened slot, got ", candidates.sizes());
  check_ids(config, candidates, "session");
  return candidates.to(at::kCPU).contiguous();
}

void check_objective(const TargetObjective& objective) {
  TORCH_CHECK_VALUE(std::isfinite(objective.mellowmax_alpha) && objective.mellowmax_alpha > 0,
                    "[session] mellowmax_alpha must be above 0, got ", objective.mellowmax_alpha);
  TORCH_CHECK_VALUE(std::isfinite(objective.cw_margin) && objective.cw_margin >= 0,
                    "[session] cw_margin must be at least 0, got ", objective.cw_margin);
}

}  // namespace titer
