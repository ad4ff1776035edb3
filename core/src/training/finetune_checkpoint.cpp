#include "training/finetune_checkpoint.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <titer/core/safetensors.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fnv1a.h"
#include "stored_tensor.h"

namespace titer {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kFormat = "titer-finetune-1";
constexpr std::chrono::seconds kInterval{30};
constexpr int kShareOfTime = 20;  // at most one part in so many is spent on writing

uint64_t hash_of(const std::vector<TrainingSequence>& data) {
  uint64_t hash = kFnv1aStart;
  const auto add = [&](int64_t value) { hash = fnv1a(hash, static_cast<uint64_t>(value)); };
  for (const TrainingSequence& sequence : data) {
    add(static_cast<int64_t>(sequence.ids.size()));
    for (const int64_t id : sequence.ids) add(id);
    for (const TrainingSequence::Span& answer : sequence.answers) {
      add(answer.begin);
      add(answer.end);
    }
  }
  return hash;
}

}  // namespace

std::string identity_of(const CausalLM& model, const std::vector<FinetuneSpec>& specs) {
  ordered_json runs = ordered_json::array();
  for (const FinetuneSpec& spec : specs)
    runs.push_back({{"options", ordered_json::parse(options_to_json(spec.options))},
                    {"sequences", spec.data->size()},
                    {"data", hash_of(*spec.data)}});
  return ordered_json{{"format", kFormat}, {"model", model.fingerprint()}, {"runs", runs}}.dump();
}

namespace {

/// What differs first, in words.
std::string difference(const std::string& found, const std::string& expected) {
  const ordered_json a = ordered_json::parse(found, nullptr, /*allow_exceptions=*/false);
  const ordered_json b = ordered_json::parse(expected);
  if (!a.is_object() || !a.contains("format") || a["format"] != kFormat)
    return "its format is not " + std::string(kFormat);
  if (!a.contains("model") || a["model"] != b["model"])
    return "it belongs to model '" +
           (a.contains("model") && a["model"].is_string() ? a["model"].get<std::string>() : "") + "'";
  if (!a.contains("runs") || !a["runs"].is_array() || a["runs"].size() != b["runs"].size())
    return "it has another number of runs";
  for (size_t k = 0; k < b["runs"].size(); ++k) {
    for (const auto& [key, value] : b["runs"][k]["options"].items()) {
      const auto pointer = ordered_json::json_pointer("/runs/" + std::to_string(k) + "/options/" + key);
      if (!a.contains(pointer) || a[pointer] != value)
        return "run " + std::to_string(k) + " had " + key + " = " + (a.contains(pointer) ? a[pointer].dump() : "none") +
               ", not " + value.dump();
    }
    if (a["runs"][k] != b["runs"][k]) return "run " + std::to_string(k) + " had other data";
  }
  return "";
}

ordered_json state_of(const FinetuneResult& result) {
  return {{"status", static_cast<int>(result.status)}, {"message", result.message}};
}

constexpr int64_t kColumns = 5;  // of a trace

std::vector<double> columns_of(const std::vector<FinetuneStep>& trace) {
  std::vector<double> out;
  for (const FinetuneStep& s : trace)
    out.insert(out.end(), {static_cast<double>(s.step), s.loss, s.learning_rate, s.grad_norm,
                           static_cast<double>(s.answer_tokens)});
  return out;
}

std::string trace_name(size_t run) { return "trace." + std::to_string(run); }

}  // namespace

FinetuneCheckpoint::FinetuneCheckpoint(std::filesystem::path path, std::string identity)
    : path_(std::move(path)), identity_(std::move(identity)) {}

void FinetuneCheckpoint::read(const RunParameters& parameters, const Optimizer& optimizer,
                              std::vector<FinetuneResult>& results) const {
  if (path_.empty() || !std::filesystem::exists(path_)) return;
  const SafetensorsFile file(path_);
  const auto metadata = [&](const std::string& key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  const std::string other = difference(metadata("identity"), identity_);
  TORCH_CHECK_VALUE(other.empty(), "[finetune] cannot resume: ", other, " (", path_.string(),
                    "); remove the checkpoint, or give what it was written with");
  const auto load = [&](const std::string& name, const at::Tensor& to) {
    const StoredTensor* stored = file.find(name);
    TORCH_CHECK_VALUE(stored != nullptr && stored->data.size() == to.nbytes(), "[finetune] '", name,
                      "' is missing or of another size (", path_.string(), ")");
    const at::Tensor values = at::empty(to.sizes(), to.options().device(at::kCPU));
    std::memcpy(values.mutable_data_ptr(), stored->data.data(), stored->data.size());
    to.copy_(values);
  };
  const ordered_json state = ordered_json::parse(metadata("state"), nullptr, /*allow_exceptions=*/false);
  const auto expect = [&](bool condition) {
    TORCH_CHECK_VALUE(condition, "[finetune] the state of the runs is missing or damaged (", path_.string(), ")");
  };
  expect(state.is_array() && state.size() == results.size());
  for (size_t k = 0; k < results.size(); ++k) {
    expect(state[k].is_object() && state[k].contains("status") && state[k]["status"].is_number_unsigned() &&
           state[k]["status"] <= static_cast<int>(FinetuneResult::Status::kDiverged) && state[k].contains("message") &&
           state[k]["message"].is_string());
    const StoredTensor* stored = file.find(trace_name(k));
    const bool fits = stored != nullptr && stored->shape.size() == 2 && stored->shape[1] == kColumns;
    const at::Tensor trace = at::empty({fits ? stored->shape[0] : 1, kColumns}, at::kDouble);
    load(trace_name(k), trace);
    const double* column = trace.const_data_ptr<double>();
    FinetuneResult& result = results[k];
    for (int64_t i = 0; i < trace.size(0); ++i, column += kColumns)
      result.trace.push_back(
          {static_cast<int64_t>(column[0]), column[1], column[2], column[3], static_cast<int64_t>(column[4])});
    result.message = state[k]["message"].get<std::string>();
    result.status = static_cast<FinetuneResult::Status>(state[k]["status"].get<int>());
    // Who stopped it wants it to go on now.
    if (result.status == FinetuneResult::Status::kStopped) result.status = FinetuneResult::Status::kRunning;
  }
  load("values", parameters.values());
  load("mean", optimizer.mean());
  load("mean_square", optimizer.mean_square());
}

void FinetuneCheckpoint::write(bool now, const RunParameters& parameters, const Optimizer& optimizer,
                               const std::vector<FinetuneResult>& results) {
  const Clock::time_point begin = Clock::now();
  if (path_.empty() || (!now && begin - written_ < std::max<Clock::duration>(kInterval, kShareOfTime * taken_))) return;
  std::vector<at::Tensor> keep;
  std::vector<StoredTensor> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    keep.push_back(tensor.detach().to(at::kCPU).contiguous());
    tensors.push_back(stored_tensor(name, keep.back()));
  };
  add("values", parameters.values());
  add("mean", optimizer.mean());
  add("mean_square", optimizer.mean_square());
  ordered_json state = ordered_json::array();
  for (size_t k = 0; k < results.size(); ++k) {
    std::vector<double> columns = columns_of(results[k].trace);
    const auto steps = static_cast<int64_t>(results[k].trace.size());
    add(trace_name(k), at::from_blob(columns.data(), {steps, kColumns}, at::kDouble).clone());
    state.push_back(state_of(results[k]));
  }
  std::filesystem::create_directories(path_.parent_path());
  write_safetensors(path_, tensors, {{"identity", identity_}, {"state", state.dump()}});
  written_ = Clock::now();
  taken_ = written_ - begin;
}

}  // namespace titer
