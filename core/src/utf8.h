// Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. Every torch-free parser checks its
// text with it, and error messages use it to show hostile bytes without becoming undecodable themselves.
// Behind that check, code points are read and written here.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace titer {

/// Length in bytes (1 to 4) of the well-formed sequence that starts at `text[position]`, or 0 if there is none.
constexpr std::size_t utf8_sequence_length(std::string_view text, std::size_t position) {
  if (position >= text.size()) return 0;
  const auto byte = [&](std::size_t offset) { return static_cast<unsigned char>(text[position + offset]); };
  const auto continues = [&](std::size_t offset) {
    return position + offset < text.size() && (byte(offset) & 0xC0U) == 0x80U;
  };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (!continues(1) || !continues(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;   // overlong
    if (lead == 0xED && byte(1) >= 0xA0) return 0;  // surrogate
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (lead == 0xF0 && byte(1) < 0x90) return 0;   // overlong
    if (lead == 0xF4 && byte(1) >= 0x90) return 0;  // above U+10FFFF
    return 4;
  }
  return 0;
}

struct CodePoint {
  char32_t value;
  std::size_t bytes;  ///< length in UTF-8
};

/// The code point that starts at `position` < text.size() of a valid UTF-8 text.
constexpr CodePoint code_point_at(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t offset) { return static_cast<unsigned char>(text[position + offset]); };
  const auto low = [&](std::size_t offset) { return byte(offset) & 0x3FU; };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1FU) << 6U | low(1), 2};
  if (lead < 0xF0) return {(lead & 0x0FU) << 12U | low(1) << 6U | low(2), 3};
  return {(lead & 0x07U) << 18U | low(1) << 12U | low(2) << 6U | low(3), 4};
}

/// Start of the character that ends at `position` > 0 of a valid UTF-8 text.
constexpr std::size_t previous_character(std::string_view text, std::size_t position) {
  do {
    --position;
  } while ((static_cast<unsigned char>(text[position]) & 0xC0U) == 0x80U);
  return position;
}

/// Appends a code point that is no surrogate.
inline void append_utf8(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (c < 0x80) {
    put(c);
    return;
  }
  if (c < 0x800) {
    put(0xC0U | c >> 6U);
  } else {
    if (c < 0x10000) {
      put(0xE0U | c >> 12U);
    } else {
      put(0xF0U | c >> 18U);
      put(0x80U | (c >> 12U & 0x3FU));
    }
    put(0x80U | (c >> 6U & 0x3FU));
  }
  put(0x80U | (c & 0x3FU));
}

/// Offset of the first byte that is not part of a well-formed sequence; `text.size()` if the whole text is valid.
constexpr std::size_t first_invalid_utf8(std::string_view text) {
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t length = utf8_sequence_length(text, position);
    if (length == 0) break;
    position += length;
  }
  return position;
}

/// Length (0 to 3) of the end of `text` that is no character, but that more bytes could make one.
constexpr std::size_t incomplete_utf8_length(std::string_view text) {
  for (std::size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    const auto lead = static_cast<unsigned char>(text[text.size() - length]);
    if (lead < 0x80) return 0;
    if (lead < 0xC0) continue;
    if (lead < 0xC2 || lead > 0xF4 || length >= (lead < 0xE0 ? 2U : lead < 0xF0 ? 3U : 4U)) return 0;
    if (length == 1) return 1;
    const auto second = static_cast<unsigned char>(text[text.size() - length + 1]);
    const unsigned lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;   // lower ones are overlong
    const unsigned highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;  // surrogates, above U+10FFFF
    return second >= lowest && second <= highest ? length : 0;
  }
  return 0;
}

}  // namespace titer
