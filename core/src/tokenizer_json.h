// Reads a `tokenizer.json` document. Whatever could make the ids differ from those of the `tokenizers` package is
// refused.
#pragma once

#include <memory>
#include <string_view>

#include "tokenizer_state.h"

namespace titer::tokenization {

/// @throws std::invalid_argument naming the key, what came, what is supported, and `origin`
std::shared_ptr<const State> read_state(std::string_view text, std::string_view origin);

}  // namespace titer::tokenization
