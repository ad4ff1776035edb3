// rope_parameters, rope_scaling and their older neighbours -> RopeConfig.
#pragma once

#include <titer/core/model_config.h>

#include "config_reader.h"

namespace titer {

/// What a family assumes about its rotary embeddings, and what the rest of the configuration says.
struct RopeContext {
  double theta = 10000.0;       ///< where the parameters do not say
  double partial_factor = 1.0;  ///< share of a head that rotates, where the parameters do not say
  bool may_be_partial = false;  ///< whether they may say anything but 1
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
};

/// @param config      the whole configuration
/// @param parameters  name of the object that holds the type and its numbers, "rope_parameters" or "rope_scaling";
/// where
///                    the key is absent, the type is default
RopeConfig read_rope(const ConfigReader& config, std::string_view parameters, const RopeContext& context);

}  // namespace titer
