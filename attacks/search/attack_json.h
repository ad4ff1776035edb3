// JSON of the parts that results, checkpoints and logs share.
#pragma once

#include <titer/attacks/prompt_attack.h>

#include <nlohmann/json.hpp>

namespace titer {

nlohmann::ordered_json cost_to_json(const Cost& cost);
Cost cost_from_json(const nlohmann::json& json);
nlohmann::ordered_json step_to_json(const AttackStep& step);
AttackStep step_from_json(const nlohmann::json& json);

}  // namespace titer
