#include "search/allowed_tokens.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <span>
#include <string>

namespace titer {

at::Tensor allowed_tokens(const Tokenizer& tokenizer, bool allow_non_ascii) {
  const at::Tensor allowed = at::zeros({tokenizer.vocab_size()}, at::kBool);
  bool* const flags = allowed.mutable_data_ptr<bool>();
  for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.has_token(id) || tokenizer.is_added_token(id)) continue;
    const std::string bytes = tokenizer.bytes_of(std::span(&id, 1));
    const bool printable = std::all_of(bytes.begin(), bytes.end(), [](char c) { return c >= ' ' && c <= '~'; });
    flags[id] = !bytes.empty() && (allow_non_ascii || printable);
  }
  return allowed;
}

}  // namespace titer
