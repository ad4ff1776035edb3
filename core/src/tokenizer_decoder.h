// From token ids back to text, by the decoders of a `tokenizer.json`. They rewrite a list of strings, at first the
// spellings of the tokens, and what remains at the end is joined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace titer::tokenization {

struct State;

struct DecoderStep {
  enum class Kind : uint8_t {
    kByteLevel,     ///< joins the bytes that all tokens spell; invalid UTF-8 becomes U+FFFD
    kByteFallback,  ///< runs of tokens such as <0xE6> become the text of these bytes, or U+FFFD for each
    kFuse,          ///< joins all tokens
    kReplace,       ///< every `pattern` in a token by `content`
    kStrip,         ///< up to `count` times `content` at the start of each token
    kMetaspace,     ///< `pattern` by a space, and in the first token by nothing if `count` is not 0
  };

  Kind kind;
  std::string pattern;    ///< not empty
  std::string content;    ///< of kStrip one character
  std::size_t count = 0;  ///< of kStrip and kMetaspace
};

struct Decoder {
  enum class Part : uint8_t {
    kStart,         ///< of a text, or all of it
    kContinuation,  ///< what follows a text that is not empty: nothing is stripped before its first token
  };

  std::vector<DecoderStep> steps;
  /// Added tokens that a normalizer changed come back as it left them.
  std::unordered_map<int32_t, std::string> normalized_spellings;

  /// Ids that belong to no token are skipped. @throws std::out_of_range if an id is negative
  std::string decode(const State& state, std::span<const int64_t> ids, bool skip_special_tokens,
                     Part part = Part::kStart) const;

  /// True if the text of ids is that of the bytes that each of them stands for.
  bool only_bytes(const State& state) const;

  /// True if the text of two parts together is that of the first and that of the second as its continuation, wherever
  /// the first has some text and does not end with a byte token.
  bool joins_parts() const;

  /// The byte that a token stands for among its like, -1 for others.
  int byte_of(const State& state, int64_t id) const;
};

/// The byte of a token of the form <0xE6>, -1 for others.
int fallback_byte(std::string_view token);

/// `bytes` with every maximal invalid UTF-8 sequence replaced by one U+FFFD.
std::string replace_invalid_utf8(std::string bytes);

}  // namespace titer::tokenization
