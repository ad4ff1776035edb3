// The session of a bare model: exact scores of many slot variants at the cost of what they change.
//
// One copy of the keys and values of `before` and of the current slot serves all candidates. Each candidate computes
// rows only from its first changed position on; ragged rows are packed for every GEMM; attention is a shared part and
// an own part merged by log-sum-exp; the head runs on target rows only. Work proceeds in blocks of a fixed number of
// rows, so peak memory does not grow with the number of candidates.
#pragma once

#include <memory>

#include <titer/core/session.h>
#include <titer/export.h>

namespace titer {

class TITER_EXPORT CandidateScorer final : public Session {
 public:
  /// @throws ValueError if the prompt does not fit the model's context, IndexError if it holds ids outside the
  /// vocabulary
  CandidateScorer(std::shared_ptr<const CausalLM> model, Prompt prompt, const SessionOptions& options = {});
  ~CandidateScorer() override;

  void rebase(const at::Tensor& slot_ids) override;
  CandidateScores score(const at::Tensor& candidates, const TargetObjective& objective) override;
  at::Tensor embedding_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) override;
  at::Tensor token_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) override;
  at::Tensor promising_tokens(const at::Tensor& gradient, const at::Tensor& allowed, int64_t k) override;
  Generation generate(std::string_view slot_text, const GenerateOptions& options) override;

 private:
  struct Plan;
  std::unique_ptr<Plan> plan_;
};

}  // namespace titer
