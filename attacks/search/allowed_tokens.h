// Which tokens a search may write.
#pragma once

#include <titer/core/tokenizer.h>

#include <cstdint>
#include <vector>

namespace titer {

/// One flag per row of the embedding. Never allowed: rows that belong to no token of the tokenizer, and added tokens,
/// special or not: an attacker who writes text cannot write chat control tokens.
///
/// @param vocab_size       rows of the embedding; may exceed the tokenizer's
/// @param allow_non_ascii  otherwise a token's text must consist of printable ASCII characters
std::vector<bool> allowed_tokens(const Tokenizer& tokenizer, int64_t vocab_size, bool allow_non_ascii);

}  // namespace titer
