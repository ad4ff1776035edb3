// Untrusted text inside error messages: escaped and shortened, so that a message is always one line of valid UTF-8
// (Python refuses to decode anything else) however long or hostile the name that it quotes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "utf8.h"

namespace titer {

/// `text` with control characters and invalid UTF-8 as \xNN, cut after about `max_bytes` bytes.
inline std::string escape_for_message(std::string_view text, std::size_t max_bytes = 120) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  std::size_t position = 0;
  while (position < text.size()) {
    if (position >= max_bytes) return out + "...";
    const auto byte = static_cast<unsigned char>(text[position]);
    const std::size_t length = utf8_sequence_length(text, position);
    if (length == 0 || byte < 0x20 || byte == 0x7F) {
      out += "\\x";
      out += kHex[byte >> 4U];
      out += kHex[byte & 15U];
      ++position;
    } else {
      out.append(text, position, length);
      position += length;
    }
  }
  return out;
}

/// The same between single quotes.
inline std::string quote(std::string_view text, std::size_t max_bytes = 120) {
  return "'" + escape_for_message(text, max_bytes) + "'";
}

}  // namespace titer
