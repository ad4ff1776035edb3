// Stored as safetensors: the state as JSON in the metadata, the momentum as a tensor.
#include "search/search_checkpoint.h"

#include <ATen/ops/empty.h>
#include <titer/core/safetensors.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "json.h"
#include "search/attack_json.h"

namespace titer {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

ordered_json identity_to_json(const SearchIdentity& identity) {
  return {{"attack", identity.attack},
          {"system", identity.system},
          {"options", ordered_json::parse(identity.options)},
          {"before_ids", identity.before_ids},
          {"slot_ids", identity.slot_ids},
          {"after_ids", identity.after_ids},
          {"target_ids", identity.target_ids}};
}

ordered_json slot_to_json(const ScoredSlot& slot) { return {{"loss", slot.loss}, {"ids", slot.ids}}; }
ScoredSlot slot_from_json(const json& value) {
  return {value.at("loss").get<double>(), value.at("ids").get<std::vector<int64_t>>()};
}

/// Throws unless a search whose slot has `slot_length` tokens can go on from this state.
void check_state(const SearchState& state, size_t slot_length, const std::string& origin) {
  const auto require = [&](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument("[checkpoint] malformed state: " + std::string(what) + " (" + origin + ")");
  };
  require(state.step >= 0 && state.trace.size() == static_cast<size_t>(state.step), "'trace' must have 'step' entries");
  require(!state.buffer.empty(), "'buffer' is empty");
  for (const ScoredSlot& slot : state.buffer)
    require(slot.ids.size() == slot_length, "a slot of 'buffer' differs in length from the prompt's");
  require(state.best.ids.size() == slot_length, "'best' differs in length from the prompt's slot");
  if (state.momentum.defined())
    require(state.momentum.dim() == 2 && state.momentum.size(0) == static_cast<int64_t>(slot_length),
            "'momentum' must have a row per token of the slot");
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const SearchIdentity& identity, const SearchState& state) {
  ordered_json buffer = ordered_json::array();
  for (const ScoredSlot& slot : state.buffer) buffer.push_back(slot_to_json(slot));
  ordered_json trace = ordered_json::array();
  for (const AttackStep& step : state.trace) trace.push_back(step_to_json(step));
  const ordered_json json{{"step", state.step},
                          {"buffer", std::move(buffer)},
                          {"best", slot_to_json(state.best)},
                          {"initial_loss", state.initial_loss},
                          {"initial_completion", state.initial_completion},
                          {"stop_reason", state.stop_reason},
                          {"cost", cost_to_json(state.cost)},
                          {"trace", std::move(trace)}};
  std::vector<StoredTensor> tensors;
  at::Tensor momentum;
  if (state.momentum.defined()) {
    momentum = state.momentum.contiguous();
    tensors.push_back({.name = "momentum",
                       .dtype = StoredDtype::kF32,
                       .shape = momentum.sizes().vec(),
                       .data = {static_cast<const std::byte*>(momentum.const_data_ptr()), momentum.nbytes()},
                       .storage = nullptr});
  }
  write_safetensors(
      path, tensors,
      {{"format", "titer.search.v2"}, {"identity", identity_to_json(identity).dump()}, {"state", json.dump()}});
}

SearchState read_checkpoint(const std::filesystem::path& path, const SearchIdentity& identity) {
  const std::string origin = path.string();
  const SafetensorsFile file(path);
  const auto entry = [&](const char* key) -> const std::string& {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end())
      throw std::invalid_argument("[checkpoint] not a checkpoint of a search: '" + std::string(key) + "' is missing (" +
                                  origin + ")");
    return found->second;
  };
  if (entry("format") != "titer.search.v2")
    throw std::invalid_argument("[checkpoint] format is '" + entry("format") + "', expected titer.search.v2 (" +
                                origin + ")");
  const json stored = parse_json(entry("identity"), origin);
  const json expected = json::parse(identity_to_json(identity).dump());
  for (const auto& [key, value] : expected.items()) {
    if (!stored.contains(key) || stored.at(key) != value)
      throw std::invalid_argument(
          "[checkpoint] it belongs to another search: '" + key +
          "' differs; resume with the model, options and prompt it was made with, or remove it (" + origin + ")");
  }
  try {
    const json value = parse_json(entry("state"), origin);
    SearchState state{.step = value.at("step").get<int64_t>(),
                      .buffer = {},
                      .best = slot_from_json(value.at("best")),
                      .initial_loss = value.at("initial_loss").get<double>(),
                      .initial_completion = value.at("initial_completion").get<std::string>(),
                      .stop_reason = value.at("stop_reason").get<std::string>(),
                      .momentum = {},
                      .cost = cost_from_json(value.at("cost")),
                      .trace = {}};
    for (const json& slot : value.at("buffer")) state.buffer.push_back(slot_from_json(slot));
    for (const json& step : value.at("trace")) state.trace.push_back(step_from_json(step));
    if (const StoredTensor* momentum = file.find("momentum")) {
      if (momentum->dtype != StoredDtype::kF32)
        throw std::invalid_argument("[checkpoint] 'momentum' must be F32 (" + origin + ")");
      state.momentum = at::empty(momentum->shape, at::kFloat);
      std::memcpy(state.momentum.mutable_data_ptr(), momentum->data.data(), momentum->data.size());
    }
    check_state(state, identity.slot_ids.size(), origin);
    return state;
  } catch (const json::exception& error) {
    throw std::invalid_argument("[checkpoint] malformed state: " + std::string(error.what()) + " (" + origin + ")");
  }
}

}  // namespace titer
