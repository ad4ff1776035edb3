// Which tokens a search may write.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/core/tokenizer.h>

namespace titer {

/// [tokenizer.vocab_size()] bool. Never allowed: ids without a token, and added tokens, special or not: an attacker who
/// writes text cannot write chat control tokens.
///
/// @param allow_non_ascii  otherwise a token's text must consist of printable ASCII characters
at::Tensor allowed_tokens(const Tokenizer& tokenizer, bool allow_non_ascii);

}  // namespace titer
