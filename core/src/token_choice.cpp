#include "token_choice.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <titer/core/philox.h>
#include <titer/kernels/linear_cross_entropy.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <span>

#include "embedding.h"

namespace titer {
namespace {

/// Those of the vocabulary, each once.
std::vector<int64_t> end_ids(const ModelConfig& config) {
  std::set<int64_t> ids;
  for (const int64_t id : config.eos_token_ids)
    if (id >= 0 && id < config.vocab_size) ids.insert(id);
  return {ids.begin(), ids.end()};
}

}  // namespace

TokenChoice::TokenChoice(const CausalLM& model, const GenerateOptions& options)
    : model_(model),
      temperature_(options.temperature),
      seed_(static_cast<uint64_t>(options.seed)),
      sampler_(options.top_k, options.top_p) {
  ends_ = at::tensor(end_ids(model.config()), at::kLong);
  TORCH_CHECK_VALUE(options.min_new_tokens == 0 || ends_.numel() < model.config().vocab_size,
                    "[generate] min_new_tokens must be 0, got ", options.min_new_tokens,
                    ": every token of this model ends an answer");
}

ChosenTokens TokenChoice::choose(const at::Tensor& hidden, const std::vector<Draw>& draws) {
  if (temperature_ != 0.0 || model_.config().logit_soft_cap) return choose_by_logits(logits(model_, hidden), draws);
  ChosenTokens chosen = likeliest(hidden);
  for (size_t row = 0; row < draws.size(); ++row) {
    const std::span<const int64_t> ends(ends_.const_data_ptr<int64_t>(), static_cast<size_t>(ends_.numel()));
    if (draws[row].may_end || std::find(ends.begin(), ends.end(), chosen.ids[row]) == ends.end()) continue;
    const at::Tensor of_row = logits(model_, hidden.narrow(0, static_cast<int64_t>(row), 1));
    const ChosenTokens other = choose_by_logits(of_row, {draws[row]});
    chosen.ids[row] = other.ids[0];
    chosen.log_probs[row] = other.log_probs[0];
  }
  return chosen;
}

/// Without logits: as they are scored against a target, here the first token of the vocabulary.
ChosenTokens TokenChoice::likeliest(const at::Tensor& hidden) const {
  const at::Tensor first = at::zeros({hidden.size(0)}, hidden.options().dtype(at::kLong));
  const auto [loss, lse, best_other, best_other_index, match] =
      ops::linear_cross_entropy(hidden, model_.weights().lm_head, first);
  TORCH_CHECK_VALUE(!lse.isnan().any().item<bool>(), "[generate] logits are not finite");
  const at::Tensor ids = at::where(match, first, best_other_index).to(at::kCPU);
  const at::Tensor log_probs = at::where(match, -loss, best_other - lse).to(at::kCPU, at::kDouble);
  return {{ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel()},
          {log_probs.const_data_ptr<double>(), log_probs.const_data_ptr<double>() + log_probs.numel()}};
}

ChosenTokens TokenChoice::choose_by_logits(at::Tensor logits, const std::vector<Draw>& draws) {
  if (logits.scalar_type() != at::kDouble) logits = logits.to(at::kFloat);
  const at::Tensor log_probs = at::log_softmax(logits, 1);  // a logit of inf or NaN makes NaN of its whole row
  TORCH_CHECK_VALUE(!log_probs.select(1, 0).isnan().any().item<bool>(), "[generate] logits are not finite");
  const at::Tensor ends = ends_.to(logits.device());
  for (size_t row = 0; row < draws.size(); ++row) {
    if (draws[row].may_end || ends_.numel() == 0) continue;
    logits.select(0, static_cast<int64_t>(row)).index_fill_(0, ends, -std::numeric_limits<double>::infinity());
  }

  ChosenTokens chosen;
  at::Tensor ids;
  if (temperature_ == 0.0) {
    ids = logits.argmax(1);  // of several, the first
    const at::Tensor on_cpu = ids.to(at::kCPU);
    chosen.ids.assign(on_cpu.const_data_ptr<int64_t>(), on_cpu.const_data_ptr<int64_t>() + on_cpu.numel());
  } else {
    for (size_t row = 0; row < draws.size(); ++row)
      chosen.ids.push_back(sample(logits.select(0, static_cast<int64_t>(row)), draws[row]));
    ids = at::tensor(chosen.ids, at::kLong).to(logits.device());
  }
  const at::Tensor of_ids = log_probs.gather(1, ids.unsqueeze(1)).to(at::kCPU, at::kDouble);
  chosen.log_probs.assign(of_ids.const_data_ptr<double>(), of_ids.const_data_ptr<double>() + of_ids.numel());
  return chosen;
}

int64_t TokenChoice::sample(const at::Tensor& logits, const Draw& draw) {
  at::Tensor weights = logits.to(logits.options().device(at::kCPU).dtype(at::kDouble), /*non_blocking=*/false,
                                 /*copy=*/true);
  weights.sub_(weights.max()).div_(temperature_).exp_();  // the likeliest is 1, whatever the temperature
  Philox random(seed_, RandomPurpose::kGeneration, static_cast<uint32_t>(draw.position), draw.stream);
  return sampler_.draw({weights.const_data_ptr<double>(), static_cast<size_t>(weights.numel())}, random.uniform());
}

}  // namespace titer
