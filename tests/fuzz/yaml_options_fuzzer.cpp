// Any bytes: assignments that set_options accepts or refuses, or std::invalid_argument that names file and line.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "titer/core/yaml_options.h"
#include "utf8.h"

namespace {

enum class Colour { kRed, kGreen };
constexpr std::string_view kColourNames[] = {"red", "green"};

struct FuzzedOptions {
  bool flag = false;
  std::int64_t count = 1;
  double rate = 0.5;
  std::string text;
  std::vector<std::string> list;
  std::optional<std::int64_t> cap;
  Colour colour = Colour::kRed;

  void visit(titer::OptionVisitor& visitor) {
    visitor.option({.name = "flag"}, flag);
    visitor.option({.name = "count", .range = {.min = 1}}, count);
    visitor.option({.name = "rate", .range = {.min = 0, .max = 1}}, rate);
    visitor.option({.name = "text"}, text);
    visitor.option({.name = "list"}, list);
    visitor.option({.name = "cap"}, cap);
    visitor.option({.name = "colour", .choices = kColourNames}, colour);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    FuzzedOptions options;
    titer::set_options(options, titer::parse_yaml_options(text, "fuzz.yaml"), "fuzz");
    titer::check_options(options, "fuzz");
    titer::options_to_json(options);
  } catch (const std::invalid_argument& error) {
    const std::string_view message = error.what();
    if (titer::first_invalid_utf8(message) != message.size() || message.find("(fuzz.yaml:") == message.npos)
      std::abort();
  }
  return 0;
}
