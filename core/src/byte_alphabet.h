// The byte-level alphabet: vocabularies spell each byte as one printable character, so that any bytes can stand in
// JSON. Bytes that are printable in Latin-1 stand for themselves, the other 68 are U+0100, U+0101, ... in byte order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace titer::tokenization {

/// UTF-8 of the character that spells `byte`.
std::string_view spelling_of(unsigned char byte);

/// Bytes that `token` spells, or nothing if it has a character outside the alphabet. `token` must be valid UTF-8.
std::optional<std::string> bytes_spelled_by(std::string_view token);

}  // namespace titer::tokenization
