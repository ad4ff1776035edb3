#include <titer/core/reference_scorer.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "attention.h"
#include "cost_meter.h"
#include "decoder.h"
#include "embedding.h"
#include "pass_guard.h"
#include "promising_tokens.h"
#include "session_checks.h"

namespace titer {
namespace {

/// Logits [B, L, V] float32 of whole sequences given as embeddings [B, L, d].
at::Tensor all_logits(const CausalLM& model, const at::Tensor& embeddings) {
  const int64_t batch = embeddings.size(0);
  const int64_t length = embeddings.size(1);
  const at::Tensor positions = at::arange(length, embeddings.options().dtype(at::kLong)).repeat({batch});
  const Rotaries rotaries = make_rotaries(model.config(), positions, length, model.dtype());
  SequenceAttention attention(model.config(), /*cache=*/nullptr, batch, /*cached=*/0, /*store=*/0);
  const at::Tensor hidden =
      decode(model, place(model, embeddings.flatten(0, 1), positions), rotaries, attention, /*workspace=*/nullptr);
  check_hidden_finite(hidden);
  return logits(model, hidden).view({batch, length, -1}).to(at::kFloat);
}

CandidateScores losses_of(const at::Tensor& logits, const at::Tensor& target_ids, const TargetObjective& objective) {
  const int64_t target = target_ids.size(0);
  const at::Tensor predicting = logits.narrow(1, logits.size(1) - target - 1, target);  // [B, T, V]
  const at::Tensor index = target_ids.view({1, target, 1}).expand({logits.size(0), target, 1});
  const at::Tensor label = predicting.gather(2, index).squeeze(2);
  const at::Tensor match = predicting.argmax(2).eq(target_ids.unsqueeze(0)).all(1);
  switch (objective.kind) {
    case TargetObjective::Kind::kCrossEntropy:
      return {-at::log_softmax(predicting, 2).gather(2, index).squeeze(2).mean(1), match};
    case TargetObjective::Kind::kMellowmax: {
      const double alpha = objective.mellowmax_alpha;
      return {(at::logsumexp(-label * alpha, 1) - std::log(static_cast<double>(target))) / alpha, match};
    }
    case TargetObjective::Kind::kCarliniWagner: {
      const at::Tensor others = predicting.scatter(2, index, -std::numeric_limits<double>::infinity());
      return {(others.amax(2) - label).clamp_min(-objective.cw_margin).mean(1), match};
    }
  }
  TORCH_INTERNAL_ASSERT(false, "unknown objective");
}

at::Tensor to_tensor(const std::vector<int64_t>& ids, const at::Device& device) {
  return at::tensor(ids, at::kLong).to(device);
}

}  // namespace

ReferenceScorer::ReferenceScorer(std::shared_ptr<const CausalLM> model, Prompt prompt, const SessionOptions& options)
    : Session(std::move(prompt)), model_(std::move(model)), options_(options) {
  TORCH_CHECK_VALUE(options.shard.world == 1, "[session] ReferenceScorer shares no work, got ", options.shard.world,
                    " ranks; open it without a shard");
  check_prompt(model_->config(), this->prompt(), options);
}

void ReferenceScorer::rebase(const at::Tensor& slot_ids) { check_slot_ids(model_->config(), prompt(), slot_ids); }

CandidateScores ReferenceScorer::score(const at::Tensor& candidates, const TargetObjective& objective) {
  check_objective(objective);
  const at::Tensor slots = check_candidates(model_->config(), prompt(), candidates).to(model_->device());
  const PassGuard guard(/*gradients=*/false);
  const at::Tensor target = to_tensor(prompt().target_ids(), model_->device());
  std::vector<at::Tensor> loss, match;
  const int64_t step = options_.batch_size.value_or(32);
  for (int64_t begin = 0; begin < slots.size(0); begin += step) {
    poll();
    const at::Tensor block = slots.narrow(0, begin, std::min(step, slots.size(0) - begin));
    const auto rows = [&](const at::Tensor& ids) { return ids.unsqueeze(0).expand({block.size(0), -1}); };
    const at::Tensor ids = at::cat({rows(to_tensor(prompt().before_ids(), model_->device())), block,
                                    rows(to_tensor(prompt().after_ids(), model_->device())), rows(target)},
                                   1);
    const at::Tensor embeddings = model_->weights().embedding.index_select(0, ids.flatten()).unflatten(0, ids.sizes());
    const CandidateScores scores = losses_of(all_logits(*model_, embeddings), target, objective);
    loss.push_back(scores.loss.to(at::kCPU));
    match.push_back(scores.match.to(at::kCPU));
  }
  cost_.queries += slots.size(0);
  cost_.tokens += slots.size(0) * prompt().length();
  if (loss.empty()) return {at::empty({0}, at::kFloat), at::empty({0}, at::kBool)};
  return {at::cat(loss), at::cat(match)};
}

at::Tensor ReferenceScorer::gradient(const at::Tensor& slot_ids, const TargetObjective& objective,
                                     bool of_one_hot) const {
  check_objective(objective);
  const at::Tensor slot = check_slot_ids(model_->config(), prompt(), slot_ids).to(model_->device());
  const PassGuard guard(/*gradients=*/true);
  const at::Tensor& embedding = model_->weights().embedding;
  const at::Tensor target = to_tensor(prompt().target_ids(), model_->device());
  const auto embed = [&](const at::Tensor& ids) { return embedding.index_select(0, ids); };
  const at::Tensor x = of_one_hot ? at::one_hot(slot, model_->config().vocab_size).to(model_->dtype()) : embed(slot);
  x.requires_grad_(true);
  const at::Tensor embeddings =
      at::cat({embed(to_tensor(prompt().before_ids(), model_->device())), of_one_hot ? at::matmul(x, embedding) : x,
               embed(to_tensor(prompt().after_ids(), model_->device())), embed(target)});
  const at::Tensor loss = losses_of(all_logits(*model_, embeddings.unsqueeze(0)), target, objective).loss;
  return torch::autograd::grad({loss}, {x})[0].to(at::kCPU, at::kFloat);
}

at::Tensor ReferenceScorer::embedding_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) {
  return gradient(slot_ids, objective, /*of_one_hot=*/false);
}

at::Tensor ReferenceScorer::token_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) {
  return gradient(slot_ids, objective, /*of_one_hot=*/true);
}

at::Tensor ReferenceScorer::promising_tokens(const at::Tensor& gradient, const at::Tensor& allowed, int64_t k) {
  return titer::promising_tokens(*model_, static_cast<int64_t>(prompt().slot_ids().size()), gradient, allowed, k);
}

Generation ReferenceScorer::generate(std::string_view slot_text, const GenerateOptions& options) {
  return titer::generate(*model_, prompt().tokenizer(), {prompt().encode(slot_text)}, options, [this] { poll(); })
      .front();
}

}  // namespace titer
