#include "rope_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "quote.h"

namespace titer {
namespace {

void read_llama3(const ConfigReader& reader, const RopeContext& context, RopeConfig& rope) {
  rope.low_freq_factor = reader.positive("low_freq_factor");
  rope.high_freq_factor = reader.positive("high_freq_factor");
  if (rope.high_freq_factor <= rope.low_freq_factor)
    reader.fail("high_freq_factor", "must be larger than low_freq_factor");
  rope.original_max_position_embeddings =
      reader.size("original_max_position_embeddings", context.max_position_embeddings);
}

/// Phi-3 states its original length beside the rope parameters, and that one counts.
void read_longrope(const ConfigReader& config, const ConfigReader& reader, const RopeContext& context,
                   RopeConfig& rope) {
  rope.original_max_position_embeddings =
      config.size("original_max_position_embeddings",
                  reader.size("original_max_position_embeddings", context.max_position_embeddings));
  rope.short_factors = reader.positives("short_factor", rope.rotary_dim / 2);
  rope.long_factors = reader.positives("long_factor", rope.rotary_dim / 2);
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  rope.factor = reader.positive("factor", static_cast<double>(context.max_position_embeddings) / original);
  const double inferred = rope.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(rope.factor) / std::log(original));
  if (!std::isfinite(inferred)) reader.fail("original_max_position_embeddings", "must be above 1 for longrope");
  rope.attention_factor = reader.positive("attention_factor", inferred);
}

}  // namespace

RopeConfig read_rope(const ConfigReader& config, std::string_view parameters, const RopeContext& context) {
  RopeConfig rope;
  rope.theta = context.theta;
  const bool stated = config.find(parameters) != nullptr;
  const ConfigReader reader = stated ? config.object(parameters) : config;
  double partial = context.partial_factor;
  if (stated) {
    rope.theta = reader.positive("rope_theta", rope.theta);
    partial = reader.positive("partial_rotary_factor", partial);
    if (partial != 1 && !context.may_be_partial) reader.fail("partial_rotary_factor", "must be 1 for this family");
  }
  rope.rotary_dim = static_cast<int64_t>(static_cast<double>(context.head_dim) * std::min(partial, 1.0));
  if (context.head_dim % 2 != 0)
    config.fail("head_dim", "must be even for rotary embeddings, got " + std::to_string(context.head_dim));
  if (partial > 1 || rope.rotary_dim < 2 || rope.rotary_dim % 2 != 0)
    reader.fail("partial_rotary_factor", "must be at most 1 and make an even part of head_dim (" +
                                             std::to_string(context.head_dim) + ") rotate");
  if (!stated) return rope;

  const char* type_key = reader.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = reader.text(type_key, "default");
  if (type == "default") return rope;
  if (type == "longrope" || ((type == "su" || type == "yarn") && reader.find("short_factor") != nullptr)) {
    rope.type = RopeConfig::Type::kLongRope;  // the two old names are those of the first Phi-3 files
    read_longrope(config, reader, context, rope);
    return rope;
  }
  if (type == "linear") {
    rope.type = RopeConfig::Type::kLinear;
  } else if (type == "dynamic") {
    rope.type = RopeConfig::Type::kDynamic;
  } else if (type == "llama3") {
    rope.type = RopeConfig::Type::kLlama3;
    read_llama3(reader, context, rope);
  } else {
    reader.fail(type_key, "is " + quote(type) +
                              ", which is not supported; supported: default, linear, dynamic, llama3, longrope");
  }
  rope.factor = reader.positive("factor");
  return rope;
}

}  // namespace titer
