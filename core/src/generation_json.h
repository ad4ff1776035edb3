// Generation <-> JSON, to the same bits in a binary form of it (CBOR, which takes any text).
#pragma once

#include <titer/core/generate.h>

#include <nlohmann/json.hpp>

namespace titer {

nlohmann::json generation_to_json(const Generation& generation);
Generation generation_from_json(const nlohmann::json& json);

}  // namespace titer
