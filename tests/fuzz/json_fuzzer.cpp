// Any bytes: parse_json returns a value that can be written and read again unchanged, or throws std::invalid_argument
// with a message that is valid UTF-8.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "json.h"
#include "utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto value = titer::parse_json(text, "fuzz.json");
    if (titer::parse_json(value.dump(), "dump") != value) std::abort();
  } catch (const std::invalid_argument& error) {
    const std::string_view message = error.what();
    if (titer::first_invalid_utf8(message) != message.size() || message.find("(fuzz.json)") == message.npos)
      std::abort();
  }
  return 0;
}
