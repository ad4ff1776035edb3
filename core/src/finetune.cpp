#include <titer/core/finetune.h>

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "cost_meter.h"
#include "linear_modules.h"
#include "pass_guard.h"
#include "training/finetune_group.h"

namespace titer {
namespace {

void check_sequence(const CausalLM& model, const TrainingSequence& sequence, size_t run, size_t index) {
  const auto length = static_cast<int64_t>(sequence.ids.size());
  const auto where = [&] { return "run " + std::to_string(run) + ", sequence " + std::to_string(index); };
  TORCH_CHECK_VALUE(!sequence.answers.empty(), "[finetune] ", where(), " has no answer to learn");
  int64_t end = 1;  // the first token is predicted from nothing
  for (const TrainingSequence::Span& answer : sequence.answers) {
    TORCH_CHECK_VALUE(answer.begin >= end && answer.begin < answer.end && answer.end <= length, "[finetune] ", where(),
                      ": the answer [", answer.begin, ", ", answer.end, ") must hold a token, begin at ", end,
                      " or later, and end within the ", length, " tokens");
    end = answer.end;
  }
  const std::optional<int64_t> limit = max_length(model.config());
  TORCH_CHECK_VALUE(!limit || length <= *limit, "[finetune] ", where(), " has ", length,
                    " tokens, the model takes at most ", limit.value_or(0),
                    ": its answers would be cut; shorten it, or "
                    "leave it out");
  for (const int64_t id : sequence.ids)
    TORCH_CHECK_INDEX(id >= 0 && id < model.config().vocab_size, "[finetune] ", where(), ": token id ", id,
                      " is outside the vocabulary of ", model.config().vocab_size);
}

void check_adapter(const ModelConfig& config, const FinetuneOptions& options, size_t run) {
  const std::string where = "[finetune] run " + std::to_string(run);
  for (const LinearModule& module : linear_modules(config, options.target_modules, where)) {
    const int64_t most = std::min(module.in_features, module.out_features);
    TORCH_CHECK_VALUE(options.lora_rank <= most, where, ": lora_rank ", options.lora_rank, " is over the size of '",
                      module.name, "', [", module.out_features, ", ", module.in_features, "]; take at most ", most,
                      ", or leave the layer out of target_modules");
  }
}

void check_specs(const CausalLM& model, const std::vector<FinetuneSpec>& specs, const FinetuneRun& run) {
  TORCH_CHECK_VALUE(!specs.empty(), "[finetune] expected at least one run");
  TORCH_CHECK_VALUE(run.micro_batch_tokens >= 1, "[finetune] micro_batch_tokens must be at least 1, got ",
                    run.micro_batch_tokens);
  const std::vector<TrainingSequence>* checked = nullptr;
  for (size_t k = 0; k < specs.size(); ++k) {
    check_options(specs[k].options, "finetune");
    if (specs[k].options.method == FinetuneOptions::Method::kLora) check_adapter(model.config(), specs[k].options, k);
    TORCH_CHECK_VALUE(specs[k].data != nullptr && !specs[k].data->empty(), "[finetune] run ", k, " has no data");
    if (specs[k].data.get() == checked) continue;
    checked = specs[k].data.get();
    for (size_t i = 0; i < checked->size(); ++i) check_sequence(model, (*checked)[i], k, i);
  }
}

std::vector<std::string> sorted(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

/// Indices of the runs that train together, groups in the order of their first runs.
std::vector<std::vector<int64_t>> groups_of(const std::vector<FinetuneSpec>& specs) {
  std::vector<std::vector<int64_t>> groups;
  std::map<std::tuple<int64_t, std::vector<std::string>>, size_t> known;
  for (size_t k = 0; k < specs.size(); ++k) {
    const FinetuneOptions& options = specs[k].options;
    if (options.method == FinetuneOptions::Method::kLora) {
      const auto [found, is_new] =
          known.emplace(std::tuple(options.lora_rank, sorted(options.target_modules)), groups.size());
      if (!is_new) {
        groups[found->second].push_back(static_cast<int64_t>(k));
        continue;
      }
    }
    groups.push_back({static_cast<int64_t>(k)});
  }
  return groups;
}

}  // namespace

Finetuning finetune(const CausalLM& model, const std::vector<FinetuneSpec>& specs, const FinetuneRun& run) {
  const PassGuard guard(/*gradients=*/false);
  check_specs(model, specs, run);
  Finetuning out;
  out.runs.resize(specs.size());
  const MemoryBaseline memory(model.device());
  const std::vector<std::vector<int64_t>> groups = groups_of(specs);
  const std::string identity = run.checkpoint.empty() ? "" : identity_of(model, specs);
  bool stopped = false;
  for (size_t g = 0; g < groups.size(); ++g) {
    const CostMeter meter(out.cost, memory);
    std::vector<FinetuneSpec> members;
    for (const int64_t k : groups[g]) {
      members.push_back(specs[static_cast<size_t>(k)]);
      members.back().options.target_modules = sorted(members.back().options.target_modules);
    }
    std::filesystem::path file;
    if (!run.checkpoint.empty()) file = run.checkpoint / ("group-" + std::to_string(g) + ".safetensors");
    FinetuneCheckpoint checkpoint(std::move(file), identity);
    FinetuneGroup group(model, std::move(members), groups[g], run, std::move(checkpoint));
    std::vector<FinetuneResult> results = group.train(out.cost, stopped);
    for (size_t i = 0; i < results.size(); ++i) {
      out.runs[static_cast<size_t>(groups[g][i])] = std::move(results[i]);
    }
  }
  return out;
}

}  // namespace titer
