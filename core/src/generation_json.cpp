#include "generation_json.h"

namespace titer {

nlohmann::json generation_to_json(const Generation& generation) {
  nlohmann::json json{{"text", generation.text},
                      {"ids", generation.ids},
                      {"log_probs", generation.log_probs},
                      {"finish_reason", generation.finish_reason}};
  if (generation.stop_string) json["stop_string"] = *generation.stop_string;
  return json;
}

Generation generation_from_json(const nlohmann::json& json) {
  Generation generation{.text = json.at("text").get<std::string>(),
                        .ids = json.at("ids").get<std::vector<int64_t>>(),
                        .log_probs = json.at("log_probs").get<std::vector<double>>(),
                        .finish_reason = json.at("finish_reason").get<FinishReason>()};
  if (json.contains("stop_string")) generation.stop_string = json.at("stop_string").get<std::string>();
  return generation;
}

}  // namespace titer
