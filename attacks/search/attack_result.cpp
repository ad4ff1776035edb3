// AttackResult <-> JSON. Numbers are written so that they read back to the same bits.
#include <titer/attacks/prompt_attack.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "json.h"
#include "search/attack_json.h"

namespace titer {

using nlohmann::ordered_json;

namespace {

constexpr size_t kMaxOptions = 1000;  // finding a key takes time linear in their number where their order is kept

/// The options in the order that they stand in, which parse_json does not keep.
///
/// @param text     the whole result, which parse_json has accepted
/// @param options  its options as parse_json read them
std::string options_in_order(std::string_view text, const nlohmann::json& options, std::string_view origin) {
  const auto is_value = [](const nlohmann::json& value) {
    return !value.is_structured() || (value.is_array() && std::none_of(value.begin(), value.end(), [](const auto& v) {
                                        return v.is_structured();
                                      }));
  };
  if (!options.is_object() || options.size() > kMaxOptions || !std::all_of(options.begin(), options.end(), is_value))
    throw std::invalid_argument("[attack_result] 'options' must be an object of at most " +
                                std::to_string(kMaxOptions) + " values and lists of values (" + std::string(origin) +
                                ")");
  const auto keep = [](int depth, ordered_json::parse_event_t event, const ordered_json& value) {
    return depth != 1 || event != ordered_json::parse_event_t::key || value == "options";
  };
  return ordered_json::parse(text, keep).at("options").dump();
}

}  // namespace

ordered_json cost_to_json(const Cost& cost) {
  return {{"queries", cost.queries},
          {"tokens", cost.tokens},
          {"flops", cost.flops},
          {"seconds", cost.seconds},
          {"peak_bytes", cost.peak_bytes}};
}

Cost cost_from_json(const nlohmann::json& json) {
  return {.queries = json.at("queries").get<int64_t>(),
          .tokens = json.at("tokens").get<int64_t>(),
          .flops = json.at("flops").get<double>(),
          .seconds = json.at("seconds").get<double>(),
          .peak_bytes = json.at("peak_bytes").get<int64_t>()};
}

ordered_json step_to_json(const AttackStep& step) {
  return {{"step", step.step},   {"loss", step.loss}, {"best_loss", step.best_loss},    {"width", step.width},
          {"draws", step.draws}, {"ids", step.ids},   {"cost", cost_to_json(step.cost)}};
}

AttackStep step_from_json(const nlohmann::json& json) {
  return {.step = json.at("step").get<int64_t>(),
          .loss = json.at("loss").get<double>(),
          .best_loss = json.at("best_loss").get<double>(),
          .width = json.at("width").get<int64_t>(),
          .draws = json.at("draws").get<int64_t>(),
          .ids = json.at("ids").get<std::vector<int64_t>>(),
          .cost = cost_from_json(json.at("cost"))};
}

std::string to_json(const AttackResult& result) {
  ordered_json trace = ordered_json::array();
  for (const AttackStep& step : result.trace) trace.push_back(step_to_json(step));
  const ordered_json json{{"format", "titer.attack_result.v1"},
                          {"attack", result.attack},
                          {"options", ordered_json::parse(result.options)},
                          {"target", result.target},
                          {"text", result.text},
                          {"ids", result.ids},
                          {"initial_loss", result.initial_loss},
                          {"loss", result.loss},
                          {"success", result.success},
                          {"initial_completion", result.initial_completion},
                          {"completion", result.completion},
                          {"stop_reason", result.stop_reason},
                          {"template_hash", result.template_hash},
                          {"cost", cost_to_json(result.cost)},
                          {"trace", std::move(trace)}};
  return json.dump(2);
}

AttackResult parse_attack_result(std::string_view text, std::string_view origin) {
  const nlohmann::json json = parse_json(text, origin);
  try {
    if (json.at("format") != "titer.attack_result.v1")
      throw std::invalid_argument("[attack_result] 'format' is not titer.attack_result.v1 (" + std::string(origin) +
                                  ")");
    AttackResult result{.attack = json.at("attack").get<std::string>(),
                        .options = options_in_order(text, json.at("options"), origin),
                        .target = json.at("target").get<std::string>(),
                        .text = json.at("text").get<std::string>(),
                        .ids = json.at("ids").get<std::vector<int64_t>>(),
                        .initial_loss = json.at("initial_loss").get<double>(),
                        .loss = json.at("loss").get<double>(),
                        .success = json.at("success").get<bool>(),
                        .initial_completion = json.at("initial_completion").get<std::string>(),
                        .completion = json.at("completion").get<std::string>(),
                        .stop_reason = json.at("stop_reason").get<std::string>(),
                        .template_hash = json.at("template_hash").get<std::string>(),
                        .cost = cost_from_json(json.at("cost")),
                        .trace = {}};
    for (const nlohmann::json& step : json.at("trace")) result.trace.push_back(step_from_json(step));
    return result;
  } catch (const nlohmann::json::exception& error) {
    throw std::invalid_argument("[attack_result] not an attack result: " + std::string(error.what()) + " (" +
                                std::string(origin) + ")");
  }
}

}  // namespace titer
