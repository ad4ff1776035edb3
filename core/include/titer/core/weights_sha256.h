// The name of a model by all of its weights.
#pragma once

#include <string>

#include <titer/core/causal_lm.h>
#include <titer/export.h>

namespace titer {

/// SHA-256, in hexadecimal digits, of every weight's name, dtype, shape and bytes, in the order of the names. Reads all
/// weights: half a second for 135 million in float32. CausalLM::fingerprint reads a sample of them.
TITER_EXPORT std::string weights_sha256(const CausalLM& model);

}  // namespace titer
