#include "byte_alphabet.h"

#include <array>
#include <cstdint>

namespace titer::tokenization {
namespace {

constexpr int kLargestCharacter = 0x100 + 68;

struct Alphabet {
  std::array<char, 512> spelling{};                  // two bytes per entry
  std::array<uint8_t, 256> spelling_size{};          // in bytes
  std::array<int16_t, kLargestCharacter> byte_of{};  // by code point; -1 outside the alphabet

  constexpr Alphabet() {
    byte_of.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const int c = printable ? byte : next++;
      const auto at = static_cast<std::size_t>(byte);
      byte_of[static_cast<std::size_t>(c)] = static_cast<int16_t>(byte);
      if (c < 0x80) {
        spelling[2 * at] = static_cast<char>(c);
        spelling_size[at] = 1;
      } else {
        spelling[2 * at] = static_cast<char>(0xC0 | c >> 6);
        spelling[2 * at + 1] = static_cast<char>(0x80 | (c & 0x3F));
        spelling_size[at] = 2;
      }
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

std::string_view spelling_of(unsigned char byte) {
  return {&kAlphabet.spelling[2 * static_cast<std::size_t>(byte)], kAlphabet.spelling_size[byte]};
}

std::optional<std::string> bytes_spelled_by(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (std::size_t i = 0; i < token.size();) {
    const auto lead = static_cast<unsigned char>(token[i]);
    int c = lead;
    if (lead >= 0xE0) return std::nullopt;
    if (lead >= 0x80) {
      c = (lead & 0x1F) << 6 | (token[i + 1] & 0x3F);
    }
    if (c >= kLargestCharacter || kAlphabet.byte_of[static_cast<std::size_t>(c)] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte_of[static_cast<std::size_t>(c)]));
    i += lead >= 0x80 ? 2 : 1;
  }
  return bytes;
}

}  // namespace titer::tokenization
