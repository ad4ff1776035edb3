// Text of token ids that arrive one after the other, without decoding all of them anew at every step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "titer/core/tokenizer.h"

namespace titer {

/// After every push, text() is what Tokenizer::decode gives for all ids without special tokens, but for a character
/// whose last bytes have not come yet: decode writes U+FFFD there, this waits for what the next token makes of it.
///
/// A push decodes the new token and those before it whose text it can change, which depends on the decoder:
///   - of bytes, an incomplete character: at most three of them
///   - with byte fallback, the run of byte tokens at the end, since one wrong byte makes U+FFFD of all of them
///   - with a decoder that rewrites text across tokens (a Replace after Fuse, say), which no known model has,
///   everything
class TextStream {
 public:
  explicit TextStream(Tokenizer tokenizer);

  /// Appends a token. Returns how many bytes at the start of text() are what they were.
  std::size_t push(int64_t id);

  const std::string& text() const { return text_; }

 private:
  void push_bytes(std::string_view bytes);
  void push_token(int64_t id);
  std::string decode(std::size_t num_ids) const;

  Tokenizer tokenizer_;
  std::string text_;
  std::size_t settled_ = 0;   ///< bytes of text_ that no token to come changes
  std::string bytes_;         ///< behind them: an incomplete character, or what the byte tokens at the end spell
  std::vector<int64_t> ids_;  ///< behind them, where ids are decoded
};

}  // namespace titer
