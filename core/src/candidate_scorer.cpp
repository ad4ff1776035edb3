#include <titer/core/candidate_scorer.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "attention.h"
#include "cost_meter.h"
#include "decoder.h"
#include "embedding.h"
#include "pass_guard.h"
#include "session_checks.h"
#include "shared_prefix_attention.h"
#include "workspace.h"

namespace titer {
namespace {

// Rows of one block: enough for a GEMM to run at full speed, few enough for activations to stay in cache.
constexpr int64_t kBlockRows = 1024;

double attention_flops(const ModelConfig& config, int64_t layers, int64_t queries, int64_t keys) {
  return 4.0 * static_cast<double>(layers * config.num_heads * config.head_dim * queries * keys);
}

double sequence_attention_flops(const ModelConfig& config, int64_t cached, int64_t rows) {
  return attention_flops(config, config.num_layers, rows, cached + rows);
}

double head_flops(const ModelConfig& config, int64_t rows) {
  return 2.0 * static_cast<double>(rows * config.hidden_size * config.vocab_size);
}

}  // namespace

struct CandidateScorer::Plan {
  Plan(std::shared_ptr<const CausalLM> shared_model, const Prompt& prompt, const SessionOptions& session_options)
      : model(std::move(shared_model)),
        config(model->config()),
        options(session_options),
        before(static_cast<int64_t>(prompt.before_ids().size())),
        slot(static_cast<int64_t>(prompt.slot_ids().size())),
        after(static_cast<int64_t>(prompt.after_ids().size())),
        target(static_cast<int64_t>(prompt.target_ids().size())) {
    check_prompt(config, prompt, options);
    const PassGuard guard(/*gradients=*/false);
    tail_ids = prompt.after_ids();
    tail_ids.insert(tail_ids.end(), prompt.target_ids().begin(), prompt.target_ids().end() - 1);
    target_ids = at::tensor(prompt.target_ids(), at::kLong).to(model->device());
    const auto long_options = at::TensorOptions().dtype(at::kLong).device(model->device());
    rotaries = make_rotaries(config, at::arange(prompt.length(), long_options), prompt.length(), model->dtype());
    prefix = KvCache(*model, /*batch=*/1, before + slot);
  }

  at::Tensor on_device(const std::vector<int64_t>& values) const {
    return at::tensor(values, at::kLong).to(model->device());
  }

  Rotaries rotary_rows(int64_t first, int64_t count) const {
    Rotaries out;
    for (const Rotary& rotary : rotaries)
      out.push_back({rotary.cos.narrow(0, first, count), rotary.sin.narrow(0, first, count)});
    return out;
  }

  Rotaries rotary_rows(const at::Tensor& positions) {
    constexpr std::array<std::string_view, 2> kCos{"cos", "local_cos"}, kSin{"sin", "local_sin"};
    Rotaries out;
    for (size_t i = 0; i < rotaries.size(); ++i)
      out.push_back({workspace.select_rows(kCos.at(i), rotaries[i].cos, positions),
                     workspace.select_rows(kSin.at(i), rotaries[i].sin, positions)});
    return out;
  }

  /// Keys and values of `ids` at `first`, behind what is cached already.
  double extend_prefix(const std::vector<int64_t>& ids, int64_t first) {
    const auto count = static_cast<int64_t>(ids.size());
    SequenceAttention attention(config, &prefix, /*batch=*/1, /*cached=*/first, /*store=*/count);
    const at::Tensor positions = at::arange(first, first + count, target_ids.options());
    const at::Tensor x = embed(*model, on_device(ids), positions);
    check_hidden_finite(decode(*model, x, rotary_rows(first, count), attention, &workspace));
    return decode_linear_flops(*model, count, count) + sequence_attention_flops(config, first, count);
  }

  TargetLoss loss(const at::Tensor& hidden, const TargetObjective& objective) const {
    return target_loss(hidden, model->weights().lm_head, target_ids, objective, config.logit_soft_cap);
  }

  /// Rows of a candidate that first differs from the base at `changed`. The row that predicts the first target token is
  /// always among them.
  int64_t first_row(int64_t changed) const { return std::min(changed, slot + after - 1); }
  int64_t own_rows(int64_t first) const { return slot + after + target - 1 - first; }

  std::shared_ptr<const CausalLM> model;
  const ModelConfig& config;
  SessionOptions options;
  int64_t before, slot, after, target;  // lengths of the spans
  std::vector<int64_t> tail_ids;        // after + all of the target but its last token, whose prediction nobody needs
  at::Tensor target_ids;
  Rotaries rotaries;          // of every position
  KvCache prefix;             // of `before` and of the base
  std::vector<int64_t> base;  // empty while the slot part of `prefix` is not valid
  Workspace workspace;
  MemoryBaseline memory{model->device()};
};

CandidateScorer::CandidateScorer(std::shared_ptr<const CausalLM> model, Prompt prompt, const SessionOptions& options)
    : Session(std::move(prompt)), plan_(std::make_unique<Plan>(std::move(model), this->prompt(), options)) {
  if (plan_->before > 0) {
    const CostMeter meter(cost_, plan_->memory);
    const PassGuard guard(/*gradients=*/false);
    cost_.flops += plan_->extend_prefix(this->prompt().before_ids(), 0);
  }
  rebase(at::tensor(this->prompt().slot_ids(), at::kLong));
}

CandidateScorer::~CandidateScorer() = default;

void CandidateScorer::rebase(const at::Tensor& slot_ids) {
  const at::Tensor ids = check_slot_ids(plan_->config, prompt(), slot_ids);
  const std::vector<int64_t> base(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel());
  if (base == plan_->base) return;
  const CostMeter meter(cost_, plan_->memory);
  const PassGuard guard(/*gradients=*/false);
  plan_->base.clear();
  cost_.flops += plan_->extend_prefix(base, plan_->before);
  plan_->base = base;
}

CandidateScores CandidateScorer::score(const at::Tensor& candidates, const TargetObjective& objective) {
  Plan& plan = *plan_;
  check_objective(objective);
  const at::Tensor ids = check_candidates(plan.config, prompt(), candidates);
  TORCH_CHECK_VALUE(!plan.base.empty(), "[session] the last rebase failed; rebase before scoring");
  const CostMeter meter(cost_, plan.memory);
  const PassGuard guard(/*gradients=*/false);
  const int64_t count = ids.size(0);
  const int64_t* id = ids.const_data_ptr<int64_t>();

  // Equal candidates are computed once; distinct ones are ordered by their first changed position.
  struct Work {
    int64_t candidate;
    int64_t first;
  };
  std::vector<Work> work;
  std::vector<size_t> work_of(static_cast<size_t>(count));
  std::unordered_map<std::string_view, size_t> seen;
  for (int64_t c = 0; c < count; ++c) {
    const int64_t* row = id + c * plan.slot;
    const std::string_view key(reinterpret_cast<const char*>(row), static_cast<size_t>(plan.slot) * sizeof(int64_t));
    const auto [entry, is_new] = seen.try_emplace(key, work.size());
    if (is_new) {
      const int64_t changed = std::mismatch(plan.base.begin(), plan.base.end(), row).first - plan.base.begin();
      work.push_back({c, plan.first_row(changed)});
    }
    work_of[static_cast<size_t>(c)] = entry->second;
  }
  std::vector<size_t> order(work.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return work[a].first < work[b].first; });

  const auto cpu = at::TensorOptions().device(at::kCPU);
  const at::Tensor work_loss = at::empty({static_cast<int64_t>(work.size())}, cpu.dtype(at::kFloat));
  const at::Tensor work_match = at::empty({static_cast<int64_t>(work.size())}, cpu.dtype(at::kBool));
  for (size_t begin = 0; begin < order.size();) {
    poll();
    std::vector<int64_t> tokens, positions;
    std::vector<PackedCandidate> packed;
    size_t end = begin;
    for (; end < order.size(); ++end) {
      const Work& item = work[order[end]];
      const int64_t rows = plan.own_rows(item.first);
      if (end > begin && (static_cast<int64_t>(tokens.size()) + rows > kBlockRows ||
                          static_cast<int64_t>(end - begin) == plan.options.batch_size))
        break;
      packed.push_back({.rows = rows, .visible = plan.before + item.first});
      const int64_t* row = id + item.candidate * plan.slot;
      for (int64_t i = item.first; i < item.first + rows; ++i) {
        tokens.push_back(i < plan.slot ? row[i] : plan.tail_ids[static_cast<size_t>(i - plan.slot)]);
        positions.push_back(plan.before + i);
      }
    }

    const at::Tensor position = plan.on_device(positions);
    const at::Tensor x = plan.workspace.select_rows("x", plan.model->weights().embedding, plan.on_device(tokens));
    SharedPrefixAttention attention(plan.config, plan.prefix, packed, plan.target, plan.workspace);
    const at::Tensor hidden =
        decode(*plan.model, place(*plan.model, x, position), plan.rotary_rows(position), attention, &plan.workspace);
    check_hidden_finite(hidden);
    const TargetLoss result = plan.loss(hidden, objective);
    const at::Tensor where = at::tensor(std::vector<int64_t>(order.begin() + static_cast<std::ptrdiff_t>(begin),
                                                             order.begin() + static_cast<std::ptrdiff_t>(end)),
                                        at::kLong);
    work_loss.index_copy_(0, where, result.loss.to(at::kCPU, at::kFloat));
    work_match.index_copy_(0, where, result.match.to(at::kCPU));

    const int64_t outputs = static_cast<int64_t>(end - begin) * plan.target;
    cost_.flops += decode_linear_flops(*plan.model, static_cast<int64_t>(tokens.size()), outputs) + attention.flops() +
                   head_flops(plan.config, outputs);
    begin = end;
  }
  cost_.queries += count;
  cost_.tokens += count * prompt().length();
  const at::Tensor gather = at::tensor(std::vector<int64_t>(work_of.begin(), work_of.end()), at::kLong);
  return {work_loss.index_select(0, gather), work_match.index_select(0, gather)};
}

at::Tensor CandidateScorer::token_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) {
  Plan& plan = *plan_;
  check_objective(objective);
  const at::Tensor ids = check_slot_ids(plan.config, prompt(), slot_ids);
  const CostMeter meter(cost_, plan.memory);
  const PassGuard guard(/*gradients=*/true);
  const std::vector<int64_t> base(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel());
  const int64_t rows = plan.slot + static_cast<int64_t>(plan.tail_ids.size());
  plan.base.clear();

  const at::Tensor& embedding = plan.model->weights().embedding;
  const at::Tensor slot = embedding.index_select(0, plan.on_device(base)).requires_grad_(true);
  const at::Tensor tail = embedding.index_select(0, plan.on_device(plan.tail_ids));
  const at::Tensor positions = at::arange(plan.before, plan.before + rows, plan.target_ids.options());
  SequenceAttention attention(plan.config, &plan.prefix, /*batch=*/1, /*cached=*/plan.before, /*store=*/plan.slot);
  const at::Tensor hidden = decode(*plan.model, place(*plan.model, at::cat({slot, tail}), positions),
                                   plan.rotary_rows(plan.before, rows), attention, /*workspace=*/nullptr)
                                .narrow(0, rows - plan.target, plan.target);
  check_hidden_finite(hidden);
  const at::Tensor loss = plan.loss(hidden, objective).loss;
  const at::Tensor gradient = torch::autograd::grad({loss}, {slot})[0];
  plan.base = base;

  // Forward, and as much again backward: only input gradients are computed, no weight has one. Attention goes forward
  // in two products and backward in four (the gradients of probabilities, v, q and k), or five where the kernel
  // computes its scores again, which it does not keep.
  const double attention_passes = plan.config.attention_soft_cap ? 3.0 : 3.5;
  cost_.flops += 2 * (decode_linear_flops(*plan.model, rows, rows) + head_flops(plan.config, plan.target)) +
                 attention_passes * sequence_attention_flops(plan.config, plan.before, rows) +
                 head_flops(plan.config, plan.slot);
  const at::NoGradGuard no_grad;
  return at::mm(gradient, embedding.t()).to(at::kCPU, at::kFloat);
}

Generation CandidateScorer::generate(std::string_view slot_text, const GenerateOptions& options) {
  Plan& plan = *plan_;
  const CostMeter meter(cost_, plan.memory);
  const std::vector<int64_t> input = prompt().encode(slot_text);
  const Generation answer =
      titer::generate(*plan.model, prompt().tokenizer(), {input}, options, [this] { poll(); }).front();
  const auto read = static_cast<int64_t>(input.size());
  const auto written = static_cast<int64_t>(answer.ids.size());
  cost_.queries += 1;
  cost_.tokens += read + written;
  // The last layer of the prompt's pass computes its last row only.
  cost_.flops += decode_linear_flops(*plan.model, read, 1) + attention_flops(plan.config, 1, 1, read) +
                 attention_flops(plan.config, plan.config.num_layers - 1, read, read) +
                 decode_linear_flops(*plan.model, written - 1, written - 1) + head_flops(plan.config, written);
  for (int64_t i = 1; i < written; ++i) cost_.flops += sequence_attention_flops(plan.config, read + i - 1, 1);
  return answer;
}

}  // namespace titer
