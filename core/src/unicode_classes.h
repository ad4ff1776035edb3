// Character classes as the `tokenizers` package sees them: \p{L}, \p{N} and \s of its regex engine, and the digits of
// its Digits splitter, which follow different Unicode versions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace titer::tokenization {

/// Bits of a character. Letter, number and space exclude each other; the Digits splitter's view is independent.
enum CharacterClass : uint8_t {
  kOther = 0,
  kLetter = 1,
  kNumber = 2,
  kSpace = 4,
  kDigit = 8,
};
constexpr uint8_t kRegexClasses = kLetter | kNumber | kSpace;

/// Classes of a code point up to U+10FFFF.
uint8_t character_class(char32_t code_point);

/// One character of a valid UTF-8 text.
struct Character {
  uint8_t classes;
  uint8_t bytes;  ///< length in UTF-8
};

/// The character that starts at `position` < text.size() of a valid UTF-8 text.
Character character_at(std::string_view text, std::size_t position);

}  // namespace titer::tokenization
