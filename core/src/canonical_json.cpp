// Written by hand because nlohmann-json's own floats are not always the shortest (its Grisu2 misses one in a thousand).
#include "canonical_json.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace titer {
namespace {

using nlohmann::json;

void append_string(std::string& text, std::string_view value) {
  constexpr std::string_view kHex = "0123456789abcdef";
  text += '"';
  std::size_t written = 0;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const auto byte = static_cast<unsigned char>(value[i]);
    if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
    text.append(value, written, i - written);
    written = i + 1;
    text += '\\';
    switch (byte) {
      case '"':
      case '\\':
        text += static_cast<char>(byte);
        break;
      case '\b':
        text += 'b';
        break;
      case '\f':
        text += 'f';
        break;
      case '\n':
        text += 'n';
        break;
      case '\r':
        text += 'r';
        break;
      case '\t':
        text += 't';
        break;
      default:
        text.append("u00");
        text += kHex[byte >> 4U];
        text += kHex[byte & 15U];
    }
  }
  text.append(value, written);
  text += '"';
}

template <typename Number, typename... Format>
std::string_view digits_of(char (&buffer)[32], Number value, Format... format) {
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value, format...).ptr};
}

void append_double(std::string& text, double value) {
  char buffer[32];
  const std::string_view scientific = digits_of(buffer, value, std::chars_format::scientific);
  const std::string_view exponent_text = scientific.substr(scientific.find('e') + 1);
  const bool is_negative = exponent_text.front() == '-';
  int exponent = 0;
  std::from_chars(exponent_text.data() + 1, exponent_text.data() + exponent_text.size(), exponent);
  if (is_negative ? exponent > 4 : exponent >= 16) {
    text += scientific;
    return;
  }
  const std::string_view fixed = digits_of(buffer, value, std::chars_format::fixed);
  text += fixed;
  if (fixed.find('.') == fixed.npos) text += ".0";
}

}  // namespace

void append_canonical_json(std::string& text, const json& value) {
  char buffer[32];
  bool is_first = true;
  switch (value.type()) {
    case json::value_t::object:
      text += '{';
      for (const auto& [key, member] : value.items()) {  // a std::map: sorted
        if (!std::exchange(is_first, false)) text += ',';
        append_string(text, key);
        text += ':';
        append_canonical_json(text, member);
      }
      text += '}';
      break;
    case json::value_t::array:
      text += '[';
      for (const json& element : value) {
        if (!std::exchange(is_first, false)) text += ',';
        append_canonical_json(text, element);
      }
      text += ']';
      break;
    case json::value_t::string:
      append_string(text, value.get_ref<const std::string&>());
      break;
    case json::value_t::boolean:
      text += value.get<bool>() ? "true" : "false";
      break;
    case json::value_t::number_integer:
      text += digits_of(buffer, value.get<std::int64_t>());
      break;
    case json::value_t::number_unsigned:
      text += digits_of(buffer, value.get<std::uint64_t>());
      break;
    case json::value_t::number_float:
      append_double(text, value.get<double>());
      break;
    default:
      text += "null";
  }
}

}  // namespace titer
