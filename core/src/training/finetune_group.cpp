#include "training/finetune_group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "decoder.h"
#include "embedding.h"
#include "pass_guard.h"
#include "token_losses.h"
#include "training/adapter_bank.h"
#include "training/full_weights.h"
#include "training/learning_rate.h"
#include "training/training_attention.h"

namespace titer {
namespace {

std::vector<FinetuneOptions> options_of(const std::vector<FinetuneSpec>& specs) {
  std::vector<FinetuneOptions> out;
  for (const FinetuneSpec& spec : specs) out.push_back(spec.options);
  return out;
}

std::unique_ptr<Trainable> make_trainable(const CausalLM& model, const std::vector<FinetuneSpec>& specs) {
  if (specs.front().options.method == FinetuneOptions::Method::kLora)
    return std::make_unique<AdapterBank>(model, options_of(specs));
  return std::make_unique<FullWeights>(model);
}

/// Consecutive items, as many as fit the rows of a pass, at least one.
std::vector<std::vector<BatchItem>> micro_batches(const std::vector<BatchItem>& items, int64_t most_rows) {
  std::vector<std::vector<BatchItem>> out;
  int64_t rows = 0;
  for (const BatchItem& item : items) {
    const int64_t count = TrainingBatch::rows_of(*item.sequence);
    if (out.empty() || rows + count > most_rows) {
      out.emplace_back();
      rows = 0;
    }
    out.back().push_back(item);
    rows += count;
  }
  return out;
}

/// Mean negative log-likelihood of each token that is predicted, [R].
at::Tensor losses_of(const CausalLM& model, const Trainable& trainable, const TrainingBatch& batch) {
  const ModelConfig& config = model.config();
  const ModelWeights weights = trainable.weights(batch);
  const Network network(config, weights);
  const Rotaries rotaries = make_packed_rotaries(config, at::split_with_sizes(batch.positions, batch.lengths),
                                                 batch.sequence_lengths, model.dtype());
  TrainingAttention attention(config, batch);
  const at::Tensor hidden =
      decode(network, embed(network, batch.ids, batch.positions), rotaries, attention, /*workspace=*/nullptr);
  return token_losses(hidden.index_select(0, batch.predicting), weights.lm_head, batch.targets, config.logit_soft_cap)
      .loss;
}

}  // namespace

FinetuneGroup::FinetuneGroup(const CausalLM& model, std::vector<FinetuneSpec> specs, std::vector<int64_t> indices,
                             const FinetuneRun& run, FinetuneCheckpoint checkpoint)
    : model_(model),
      specs_(std::move(specs)),
      indices_(std::move(indices)),
      run_(run),
      trainable_(make_trainable(model, specs_)),
      optimizer_(trainable_->parameters(), options_of(specs_)),
      results_(specs_.size()),
      checkpoint_(std::move(checkpoint)) {
  for (const FinetuneSpec& spec : specs_) orders_.emplace_back(spec.options, static_cast<int64_t>(spec.data->size()));
  if (run.resume) checkpoint_.read(trainable_->parameters(), optimizer_, results_);
  check_state();
}

/// Of what a checkpoint holds, which others may have written.
void FinetuneGroup::check_state() const {
  for (size_t k = 0; k < results_.size(); ++k) {
    const auto& [status, message, trace, adapter, model] = results_[k];
    const auto done = static_cast<int64_t>(trace.size());
    const bool is_whole = done == orders_[k].num_steps();
    bool fits = done <= orders_[k].num_steps();
    if (status == FinetuneResult::Status::kCompleted) fits = is_whole;
    if (status == FinetuneResult::Status::kRunning) fits = fits && !is_whole;
    for (int64_t i = 0; i < done; ++i) fits = fits && trace[static_cast<size_t>(i)].step == i + 1;
    TORCH_CHECK_VALUE(fits, "[finetune] the steps of run ", indices_[k], " do not fit its options (",
                      run_.checkpoint.string(), "); remove the checkpoint");
  }
}

std::vector<FinetuneResult> FinetuneGroup::train(Cost& cost, bool& stopped) {
  if (stopped) stop();
  try {
    while (!running().empty()) {
      if (!step(cost)) {
        stopped = true;
        stop();
      }
      save(/*now=*/running().empty());
    }
  } catch (...) {
    try {
      if (!is_updating_) save(/*now=*/true);
    } catch (const std::exception&) {  // what interrupted the runs says more, and an older checkpoint is still there
    }
    throw;
  }
  for (size_t k = 0; k < results_.size(); ++k) {
    if (!optimizer_.is_finite(static_cast<int64_t>(k))) continue;
    trainable_->write_result(static_cast<int64_t>(k), results_[k]);
    if (results_[k].adapter) results_[k].adapter->template_hash = run_.template_hash;
  }
  return results_;
}

std::vector<int64_t> FinetuneGroup::running() const {
  std::vector<int64_t> out;
  for (size_t k = 0; k < results_.size(); ++k)
    if (results_[k].status == FinetuneResult::Status::kRunning) out.push_back(static_cast<int64_t>(k));
  return out;
}

/// One step of every run that goes on; false where the callback stops all.
bool FinetuneGroup::step(Cost& cost) {
  const std::vector<int64_t> runs = running();
  trainable_->parameters().gradients().zero_();
  const std::vector<BatchItem> items = items_of(runs);
  std::vector<StepLoss> losses(results_.size());
  for (const BatchItem& item : items)
    for (const TrainingSequence::Span& answer : item.sequence->answers)
      losses[static_cast<size_t>(item.run)].tokens += answer.end - answer.begin;
  for (const std::vector<BatchItem>& micro_batch : micro_batches(items, run_.micro_batch_tokens)) {
    if (run_.poll) run_.poll();
    pass(micro_batch, losses, cost);
  }
  is_updating_ = true;
  for (const int64_t k : runs) update(k, losses[static_cast<size_t>(k)]);
  is_updating_ = false;
  bool goes_on = true;
  for (const int64_t k : runs) {
    const FinetuneResult& result = results_[static_cast<size_t>(k)];
    if (run_.progress && result.status != FinetuneResult::Status::kDiverged)
      goes_on &= run_.progress(indices_[static_cast<size_t>(k)], result.trace.back(),
                               orders_[static_cast<size_t>(k)].num_steps());
  }
  return goes_on;
}

void FinetuneGroup::stop() {
  for (const int64_t k : running()) results_[static_cast<size_t>(k)].status = FinetuneResult::Status::kStopped;
}

std::vector<BatchItem> FinetuneGroup::items_of(const std::vector<int64_t>& runs) {
  std::vector<BatchItem> items;
  for (const int64_t k : runs) {
    const auto run = static_cast<size_t>(k);
    int64_t item = 0;
    for (const int64_t i : orders_[run].sequences(step_of(k)))
      items.push_back({k, step_of(k), item++, &(*specs_[run].data)[static_cast<size_t>(i)]});
  }
  return items;
}

/// Adds the gradients of a micro-batch to the parameters', and its losses to `losses`.
void FinetuneGroup::pass(const std::vector<BatchItem>& items, std::vector<StepLoss>& losses, Cost& cost) const {
  const PassGuard guard(/*gradients=*/true);
  const TrainingBatch batch(items, model_.device());
  const at::Tensor token_loss = losses_of(model_, *trainable_, batch);
  std::vector<double> share;  // of a token in its run's mean
  for (int64_t i = 0; i < batch.num_runs(); ++i) {
    const auto run = static_cast<size_t>(batch.first_run + i);
    share.insert(share.end(), static_cast<size_t>(batch.answer_tokens[static_cast<size_t>(i)]),
                 1 / static_cast<double>(losses[run].tokens));
  }
  torch::autograd::backward({(token_loss * at::tensor(share, token_loss.options().requires_grad(false))).sum()}, {});

  const std::vector<at::Tensor> by_run =
      at::split_with_sizes(token_loss.detach().to(at::kCPU, at::kDouble), batch.answer_tokens);
  for (size_t i = 0; i < by_run.size(); ++i)
    losses[static_cast<size_t>(batch.first_run) + i].sum += by_run[i].sum().item<double>();
  cost.queries += static_cast<int64_t>(items.size());
  cost.tokens += batch.ids.size(0);
  cost.flops += trainable_->flops(batch);
}

void FinetuneGroup::update(int64_t run, const StepLoss& loss) {
  const FinetuneOptions& options = specs_[static_cast<size_t>(run)].options;
  FinetuneResult& result = results_[static_cast<size_t>(run)];
  const int64_t step = step_of(run), num_steps = orders_[static_cast<size_t>(run)].num_steps();
  const double mean = loss.sum / static_cast<double>(loss.tokens), norm = optimizer_.gradient_norm(run);
  const auto diverge = [&](std::string_view what, std::string_view rest) {
    std::ostringstream message;
    message << "[finetune] run " << indices_[static_cast<size_t>(run)] << ": the " << what << " of step " << step + 1
            << " is not finite; lower its learning rate, or check its data. What it had learned before is " << rest;
    result.message = message.str();
    result.status = FinetuneResult::Status::kDiverged;
  };
  if (!std::isfinite(mean) || !std::isfinite(norm)) {
    diverge(std::isfinite(mean) ? "gradient" : "loss", "kept");
    return;
  }
  const double factor = learning_rate_factor(options, step, num_steps);
  optimizer_.step(run, step, factor, norm);
  result.trace.push_back({step + 1, mean, factor * options.learning_rate, norm, loss.tokens});
  if (!optimizer_.is_finite(run)) {
    diverge("result", "lost");
  } else if (step + 1 == num_steps) {
    result.status = FinetuneResult::Status::kCompleted;
  }
}

void FinetuneGroup::save(bool now) { checkpoint_.write(now, trainable_->parameters(), optimizer_, results_); }

}  // namespace titer
