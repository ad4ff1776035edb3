// Character classes as the `tokenizers` package sees them: \p{L} and its parts, \p{M}, \p{N} and \s of its regex
// engine, the digits of its Digits splitter, and the word characters of its added tokens, which follow different
// Unicode versions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace titer::tokenization {

/// Bits of a character. Letter, mark, number and space exclude each other, and so do upper and lower, which are kinds
/// of letters. Digit and word are views of their own.
enum CharacterClass : uint8_t {
  kOther = 0,
  kLetter = 1,
  kNumber = 2,
  kSpace = 4,
  kDigit = 8,
  kMark = 16,
  kUpper = 32,  ///< upper and title case: Lu, Lt
  kLower = 64,  ///< Ll; letters that are neither upper nor lower are Lm and Lo
  kWord = 128,  ///< what an added token with `single_word` must not touch
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
