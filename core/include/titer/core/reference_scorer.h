// The oracle of CandidateScorer: whole padded sequences, full logits, autograd through an explicit one-hot. Slow and
// plain; for tests and for checking a result, not for attacks. Its cost counts queries and tokens only.
#pragma once

#include <memory>

#include <titer/core/session.h>
#include <titer/export.h>

namespace titer {

class TITER_EXPORT ReferenceScorer final : public Session {
 public:
  ReferenceScorer(std::shared_ptr<const CausalLM> model, Prompt prompt, const SessionOptions& options = {});

  void rebase(const at::Tensor& slot_ids) override;
  CandidateScores score(const at::Tensor& candidates, const TargetObjective& objective) override;
  at::Tensor embedding_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) override;
  at::Tensor token_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) override;
  at::Tensor promising_tokens(const at::Tensor& gradient, const at::Tensor& allowed, int64_t k) override;
  Generation generate(std::string_view slot_text, const GenerateOptions& options) override;

 private:
  at::Tensor gradient(const at::Tensor& slot_ids, const TargetObjective& objective, bool of_one_hot) const;

  std::shared_ptr<const CausalLM> model_;
  SessionOptions options_;
};

}  // namespace titer
