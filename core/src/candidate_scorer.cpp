#include <titer/core/candidate_scorer.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <type_traits>

#include "attention.h"
#include "candidate_blocks.h"
#include "captured_pass.h"
#include "cost_meter.h"
#include "decoder.h"
#include "embedding.h"
#include "generation_json.h"
#include "pass_guard.h"
#include "promising_tokens.h"
#include "rank_exchange.h"
#include "session_checks.h"
#include "shared_prefix_attention.h"
#include "workspace.h"
#ifdef TITER_HAS_CUDA
#include "cuda_graph.h"
#endif

namespace titer {
namespace {

/// What the gradient of the slot comes from and leads to.
struct GradientPass {
  at::Tensor hidden;    // [T, d] of the rows that predict the target
  at::Tensor gradient;  // [S, d] of the slot's embedding rows
};

// Up to here starting the kernels takes as long as running them.
[[maybe_unused]] constexpr int64_t kMostCapturedParameters = 1'500'000'000;

/// Captures the gradient of small models on a GPU; null for all others.
std::unique_ptr<WorkRecorder> gradient_recorder([[maybe_unused]] const CausalLM& model) {
#ifdef TITER_HAS_CUDA
  if (model.device().is_cuda() && model.num_parameters() <= kMostCapturedParameters)
    return make_cuda_graph(model.device());
#endif
  return nullptr;
}

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
    gradient_slot = at::empty({slot}, long_options);
    gradient_tail = on_device(tail_ids);
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

  /// One block of the candidates `ids` [B, S]. Adds what it executes to `flops`.
  TargetLoss compute(const int64_t* ids, std::span<const CandidateWork> block, const TargetObjective& objective,
                     double& flops) {
    std::vector<int64_t> tokens, positions;
    std::vector<PackedCandidate> packed;
    for (const CandidateWork& work : block) {
      const int64_t* row = ids + work.candidate * slot;
      packed.push_back({.rows = slot + tail_length() - work.first, .visible = before + work.first});
      for (int64_t i = work.first; i < slot + tail_length(); ++i) {
        tokens.push_back(i < slot ? row[i] : tail_ids[static_cast<size_t>(i - slot)]);
        positions.push_back(before + i);
      }
    }
    const at::Tensor position = on_device(positions);
    const at::Tensor x = workspace.select_rows("x", model->weights().embedding, on_device(tokens));
    SharedPrefixAttention attention(config, prefix, packed, target, workspace);
    const at::Tensor hidden = decode(*model, place(*model, x, position), rotary_rows(position), attention, &workspace);
    check_hidden_finite(hidden);
    const int64_t outputs = static_cast<int64_t>(block.size()) * target;
    flops += decode_linear_flops(*model, static_cast<int64_t>(tokens.size()), outputs) + attention.flops() +
             head_flops(config, outputs);
    return loss(hidden, objective);
  }

  /// From the ids in `gradient_slot`, whose keys and values it stores. Reads and writes memory of the session alone and
  /// does not wait for the device, so that it can be captured; the prompt fixes its shapes.
  GradientPass pass_of_gradient(const TargetObjective& objective) {
    const int64_t rows = slot + tail_length();
    const at::Tensor& embedding = model->weights().embedding;
    const at::Tensor x = embedding.index_select(0, gradient_slot).requires_grad_(true);
    const at::Tensor tail = embedding.index_select(0, gradient_tail);
    const at::Tensor positions = at::arange(before, before + rows, target_ids.options());
    SequenceAttention attention(config, &prefix, /*batch=*/1, /*cached=*/before, /*store=*/slot);
    const at::Tensor hidden = decode(*model, place(*model, at::cat({x, tail}), positions), rotary_rows(before, rows),
                                     attention, /*workspace=*/nullptr)
                                  .narrow(0, rows - target, target);
    return {hidden.detach(), torch::autograd::grad({loss(hidden, objective).loss}, {x})[0]};
  }

  /// [S, d], of the model's dtype and device, with respect to the embedding rows of `ids`, whose keys and values are
  /// stored on the way.
  at::Tensor gradient(const std::vector<int64_t>& ids, const TargetObjective& objective) {
    const PassGuard guard(/*gradients=*/true);
    gradient_slot.copy_(at::tensor(ids, at::kLong));
    const auto [hidden, of_slot] = captured_gradient.run(objective, [&] { return pass_of_gradient(objective); });
    check_hidden_finite(hidden);
    return of_slot;
  }

  /// Rebases to the slot that rank 0 gives, and adds what that costs to `flops`.
  ///
  /// @param finish  makes of the gradient by the embedding rows what is returned, on the CPU
  template <typename Finish>
  at::Tensor gradient_of_rank_0(const Prompt& prompt, const at::Tensor& slot_ids, const TargetObjective& objective,
                                double& flops, const Finish& finish) {
    const std::vector<int64_t> ids = base_of_rank_0([&] {
      check_objective(objective);
      return check_slot_ids(config, prompt, slot_ids);
    });
    base.clear();
    at::Tensor result;
    on_all_ranks(options.shard, [&] {
      const at::Tensor of_slot = gradient(ids, objective);
      const PassGuard guard(/*gradients=*/false);
      result = finish(of_slot).to(at::kCPU, at::kFloat);
    });
    base = ids;
    if (options.shard.world > 1) options.shard.broadcast(result);

    // Forward, and as much again backward: only input gradients are computed, no weight has one. Attention goes forward
    // in two products and backward in four (the gradients of probabilities, v, q and k), or five where the kernel
    // computes its scores again, which it does not keep.
    const double attention_passes = config.attention_soft_cap ? 3.0 : 3.5;
    const int64_t rows = slot + tail_length();
    flops += on_every_rank(2 * (decode_linear_flops(*model, rows, rows) + head_flops(config, target)) +
                           attention_passes * sequence_attention_flops(config, before, rows));
    return result;
  }

  /// The slot that rank 0 gives, once checked.
  std::vector<int64_t> base_of_rank_0(const std::function<at::Tensor()>& check) const {
    const at::Tensor ids = ids_from_rank_0(options.shard, slot, check);
    return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel()};
  }

  /// Operations of all ranks together where each of them executes the same.
  double on_every_rank(double flops) const { return static_cast<double>(options.shard.world) * flops; }

  /// Rows behind the slot: of `after` and of all of the target but its last token, whose prediction nobody needs.
  int64_t tail_length() const { return static_cast<int64_t>(tail_ids.size()); }

  std::shared_ptr<const CausalLM> model;
  const ModelConfig& config;
  SessionOptions options;
  int64_t before, slot, after, target;  // lengths of the spans
  std::vector<int64_t> tail_ids;        // of the rows behind the slot
  at::Tensor target_ids;
  Rotaries rotaries;          // of every position
  KvCache prefix;             // of `before` and of the base
  std::vector<int64_t> base;  // empty while the slot part of `prefix` is not valid
  Workspace workspace;
  at::Tensor gradient_slot, gradient_tail;  // ids [S] of the gradient's slot, and of what follows it
  CapturedPass<GradientPass, TargetObjective> captured_gradient{gradient_recorder(*model)};
  MemoryBaseline memory{model->device()};
};

namespace {

/// Throws unless what this rank opened would be computed as rank 0 does.
void require_same_on_all_ranks(const CausalLM& model, const Prompt& prompt, const SessionOptions& options) {
  const Shard& shard = options.shard;
  if (shard.world == 1) return;
  const auto describe = [&] {
    const nlohmann::json json{model.fingerprint(), prompt.before_ids(), prompt.slot_ids(),
                              prompt.after_ids(),  prompt.target_ids(), options.batch_size.value_or(0)};
    return json.dump();
  };
  const std::string first = from_rank_0(shard, describe);
  on_all_ranks(shard, [&] {
    TORCH_CHECK_VALUE(first == describe(), "[shard] rank ", shard.rank,
                      " opened another model, prompt or batch_size than rank 0; open the same on every rank");
  });
}

/// Checked there. Ranks that share a run are built alike, as their collective calls already ask of them.
TargetObjective objective_of_rank_0(const Shard& shard, const TargetObjective& objective) {
  static_assert(std::is_trivially_copyable_v<TargetObjective>);
  const std::string bytes = from_rank_0(shard, [&] {
    check_objective(objective);
    return std::string(reinterpret_cast<const char*>(&objective), sizeof(objective));
  });
  TargetObjective out;
  std::memcpy(&out, bytes.data(), sizeof(out));
  return out;
}

}  // namespace

CandidateScorer::CandidateScorer(std::shared_ptr<const CausalLM> model, Prompt prompt, const SessionOptions& options)
    : Session(std::move(prompt)) {
  check_shard(options.shard);
  on_all_ranks(options.shard, [&] { plan_ = std::make_unique<Plan>(std::move(model), this->prompt(), options); });
  require_same_on_all_ranks(*plan_->model, this->prompt(), options);
  if (plan_->before > 0) {
    const CostMeter meter(cost_, plan_->memory);
    const PassGuard guard(/*gradients=*/false);
    on_all_ranks(options.shard,
                 [&] { cost_.flops += plan_->on_every_rank(plan_->extend_prefix(this->prompt().before_ids(), 0)); });
  }
  rebase(at::tensor(this->prompt().slot_ids(), at::kLong));
}

CandidateScorer::~CandidateScorer() = default;

void CandidateScorer::rebase(const at::Tensor& slot_ids) {
  Plan& plan = *plan_;
  const std::vector<int64_t> base =
      plan.base_of_rank_0([&] { return check_slot_ids(plan.config, prompt(), slot_ids); });
  if (base == plan.base) return;
  const CostMeter meter(cost_, plan.memory);
  const PassGuard guard(/*gradients=*/false);
  plan.base.clear();
  on_all_ranks(plan.options.shard, [&] { cost_.flops += plan.on_every_rank(plan.extend_prefix(base, plan.before)); });
  plan.base = base;
}

CandidateScores CandidateScorer::score(const at::Tensor& candidates, const TargetObjective& own_objective) {
  Plan& plan = *plan_;
  const Shard& shard = plan.options.shard;
  const CostMeter meter(cost_, plan.memory);
  const PassGuard guard(/*gradients=*/false);
  const TargetObjective objective = objective_of_rank_0(shard, own_objective);
  const at::Tensor ids = ids_from_rank_0(shard, plan.slot, [&] {
    const at::Tensor checked = check_candidates(plan.config, prompt(), candidates);
    TORCH_CHECK_VALUE(!plan.base.empty(), "[session] the last rebase failed; rebase before scoring");
    return checked;
  });
  const int64_t* id = ids.const_data_ptr<int64_t>();
  const CandidateBlocks todo = plan_blocks({id, static_cast<size_t>(ids.numel())}, plan.base,
                                           {.positions = plan.slot + plan.tail_length(),
                                            .last_first = plan.slot + plan.after - 1,
                                            .batch_size = plan.options.batch_size});

  // Of each rank: losses, then matches, of the work in its own blocks; then the operations that this took.
  const size_t distinct = todo.work.size();
  const std::vector<int64_t> ranks = block_ranks(todo.blocks, shard.world);
  const auto results = from_all_ranks(shard, static_cast<int64_t>(2 * distinct + 1), [&](double* own) {
    for (size_t b = 0; b < todo.blocks.size(); ++b) {
      poll();
      if (ranks[b] != shard.rank) continue;
      const auto [begin, end, rows] = todo.blocks[b];
      const TargetLoss result =
          plan.compute(id, std::span(todo.work).subspan(begin, end - begin), objective, own[2 * distinct]);
      const at::Tensor loss = result.loss.to(at::kCPU, at::kDouble), match = result.match.to(at::kCPU, at::kDouble);
      std::copy_n(loss.const_data_ptr<double>(), end - begin, own + begin);
      std::copy_n(match.const_data_ptr<double>(), end - begin, own + distinct + begin);
    }
  });

  const auto cpu = at::TensorOptions().device(at::kCPU);
  const at::Tensor loss = at::empty({static_cast<int64_t>(distinct)}, cpu.dtype(at::kFloat));
  const at::Tensor match = at::empty({static_cast<int64_t>(distinct)}, cpu.dtype(at::kBool));
  for (size_t b = 0; b < todo.blocks.size(); ++b) {
    const auto* of_rank = results[static_cast<size_t>(ranks[b])].const_data_ptr<double>();
    for (size_t i = todo.blocks[b].begin; i < todo.blocks[b].end; ++i) {
      loss.mutable_data_ptr<float>()[i] = static_cast<float>(of_rank[i]);
      match.mutable_data_ptr<bool>()[i] = of_rank[distinct + i] != 0;
    }
  }
  for (const at::Tensor& result : results) cost_.flops += result.const_data_ptr<double>()[2 * distinct];
  cost_.queries += ids.size(0);
  cost_.tokens += ids.size(0) * prompt().length();
  const at::Tensor work_of = at::tensor(todo.work_of, at::kLong);
  return {loss.index_select(0, work_of), match.index_select(0, work_of)};
}

at::Tensor CandidateScorer::embedding_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) {
  const CostMeter meter(cost_, plan_->memory);
  return plan_->gradient_of_rank_0(prompt(), slot_ids, objective, cost_.flops,
                                   [](const at::Tensor& of_slot) { return of_slot; });
}

at::Tensor CandidateScorer::token_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) {
  Plan& plan = *plan_;
  const CostMeter meter(cost_, plan.memory);
  const at::Tensor gradient = plan.gradient_of_rank_0(
      prompt(), slot_ids, objective, cost_.flops,
      [&](const at::Tensor& of_slot) { return at::mm(of_slot, plan.model->weights().embedding.t()); });
  cost_.flops += plan.on_every_rank(head_flops(plan.config, plan.slot));
  return gradient;
}

at::Tensor CandidateScorer::promising_tokens(const at::Tensor& gradient, const at::Tensor& allowed, int64_t k) {
  const CostMeter meter(cost_, plan_->memory);
  at::Tensor tokens = titer::promising_tokens(*plan_->model, plan_->slot, gradient, allowed, k);
  if (tokens.size(1) > 0) cost_.flops += head_flops(plan_->config, plan_->slot);
  return tokens;
}

Generation CandidateScorer::generate(std::string_view slot_text, const GenerateOptions& options) {
  Plan& plan = *plan_;
  const CostMeter meter(cost_, plan.memory);
  const Shard& shard = plan.options.shard;
  Generation answer;
  int64_t read = 0;
  const std::string told = from_rank_0(shard, [&] {
    const std::vector<int64_t> input = prompt().encode(slot_text);
    read = static_cast<int64_t>(input.size());
    answer = titer::generate(*plan.model, prompt().tokenizer(), {input}, options, [this] { poll(); }).front();
    if (shard.world == 1) return std::string();
    std::string bytes;
    nlohmann::json::to_cbor({{"read", read}, {"answer", generation_to_json(answer)}}, bytes);
    return bytes;
  });
  if (shard.rank > 0) {
    const nlohmann::json json = nlohmann::json::from_cbor(told);
    json.at("read").get_to(read);
    answer = generation_from_json(json.at("answer"));
  }
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
