#include "search/allowed_tokens.h"

#include <algorithm>
#include <span>
#include <string>

namespace titer {

std::vector<bool> allowed_tokens(const Tokenizer& tokenizer, int64_t vocab_size, bool allow_non_ascii) {
  std::vector<bool> allowed(static_cast<size_t>(vocab_size), false);
  for (int64_t id = 0; id < std::min(vocab_size, tokenizer.vocab_size()); ++id) {
    if (!tokenizer.has_token(id) || tokenizer.is_added_token(id)) continue;
    const std::string bytes = tokenizer.bytes_of(std::span(&id, 1));
    const bool printable = std::all_of(bytes.begin(), bytes.end(), [](char c) { return c >= ' ' && c <= '~'; });
    allowed[static_cast<size_t>(id)] = !bytes.empty() && (allow_non_ascii || printable);
  }
  return allowed;
}

}  // namespace titer
