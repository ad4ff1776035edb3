// YAML through yaml-cpp's event interface, never its node tree: the handler below throws at the first thing that a
// mapping of options cannot hold, so neither the parser's recursion nor an alias bomb gets anywhere.
#include "titer/core/yaml_options.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "quote.h"
#include "titer/core/atomic_file.h"

namespace titer {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 18U;  // yaml-cpp reads about 1 MiB per second

[[noreturn]] void fail_at(std::string_view origin, int line, const std::string& what) {
  throw std::invalid_argument("[yaml] " + what + " (" + escape_for_message(origin, 1024) + ":" + std::to_string(line) +
                              ")");
}

bool all_of_digits(std::string_view text, std::string_view digits) {
  return !text.empty() && text.find_first_not_of(digits) == std::string_view::npos;
}

/// [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
bool is_core_float(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789";
  const auto skip_sign = [&] {
    if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
  };
  const auto skip_digits = [&] {
    const std::size_t count = std::min(text.find_first_not_of(kDigits), text.size());
    text.remove_prefix(count);
    return count;
  };
  skip_sign();
  const std::size_t whole = skip_digits();
  std::size_t fraction = 0;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    fraction = skip_digits();
  }
  if (whole + fraction == 0) return false;
  if (text.starts_with('e') || text.starts_with('E')) {
    text.remove_prefix(1);
    skip_sign();
    if (skip_digits() == 0) return false;
  }
  return text.empty();
}

/// Reads events of one document; every event outside the accepted shape is an error.
class MappingReader final : public YAML::EventHandler {
 public:
  MappingReader(std::string_view text, std::string_view origin) : text_(text), origin_(origin) {}

  std::vector<OptionAssignment> take() { return std::move(assignments_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) fail(mark, "a second document starts; expected one mapping of options");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    if (place_ == Place::kRoot) return;  // nothing but comments
    if (place_ == Place::kKey) fail(mark, "expected an option name, got null");
    if (place_ == Place::kValue && !key_has_colon()) {
      fail_at(origin_, key_line_, "expected ': ' and a value after option " + quote(key_));
    }
    value(mark, std::monostate{});
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    fail(mark, "aliases are not supported; write the value out");
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    refuse_anchor(mark, anchor);
    const bool plain = tag == "?";
    if (!plain && tag != "!") refuse_tag(mark, tag);
    if (place_ == Place::kKey) {
      key(mark, text);
    } else {
      value(mark, plain ? core_schema_value(mark, text) : OptionValue(text));
    }
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    refuse_anchor(mark, anchor);
    if (tag != "?" && tag != "!" && !tag.empty()) refuse_tag(mark, tag);
    if (place_ != Place::kValue) fail(mark, "expected " + expected_here() + ", got a list");
    list_.clear();
    place_ = Place::kListItem;
  }
  void OnSequenceEnd() override {
    add(std::move(list_));
    list_ = {};
  }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    refuse_anchor(mark, anchor);
    if (tag != "?" && tag != "!" && !tag.empty()) refuse_tag(mark, tag);
    if (place_ != Place::kRoot) fail(mark, "expected " + expected_here() + ", got a mapping");
    place_ = Place::kKey;
  }
  void OnMapEnd() override { place_ = Place::kEnd; }

 private:
  enum class Place { kRoot, kKey, kValue, kListItem, kEnd };

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) const {
    fail_at(origin_, mark.line + 1, what);
  }
  [[noreturn]] void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    fail(mark, "tag " + quote(tag) + " is not supported; quote texts, write numbers plainly");
  }
  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != 0) fail(mark, "anchors are not supported; write the value out");
  }

  std::string expected_here() const {
    switch (place_) {
      case Place::kKey:
        return "an option name";
      case Place::kValue:
        return "a value or a list of texts for option " + quote(key_);
      case Place::kListItem:
        return "texts in the list of option " + quote(key_);
      default:
        return "a mapping of options";
    }
  }

  /// yaml-cpp takes a line without a colon for a key whose value is null, YAML does not.
  bool key_has_colon() {
    // Keys come in the order of the text, so the lines before this one are never needed again.
    for (; line_ < key_line_; ++line_) text_.remove_prefix(text_.find('\n') + 1);
    const std::string_view line = text_.substr(0, text_.find('\n'));
    return line.substr(0, line.find('#')).find(':') != std::string_view::npos;
  }

  void key(const YAML::Mark& mark, const std::string& name) {
    if (!keys_.insert(name).second) fail(mark, "option " + quote(name) + " is given twice");
    key_ = name;
    key_line_ = mark.line + 1;
    place_ = Place::kValue;
  }

  void value(const YAML::Mark& mark, OptionValue value) {
    if (place_ == Place::kListItem) {
      auto* text = std::get_if<std::string>(&value);
      if (text == nullptr) fail(mark, "expected " + expected_here() + ", got something else; quote the item");
      list_.push_back(std::move(*text));
    } else if (place_ == Place::kValue) {
      add(std::move(value));
    } else {
      fail(mark, "expected " + expected_here() + ", got a single value");
    }
  }

  void add(OptionValue value) {
    assignments_.push_back({key_, std::move(value), std::string(origin_) + ":" + std::to_string(key_line_)});
    place_ = Place::kKey;
  }

  OptionValue core_schema_value(const YAML::Mark& mark, const std::string& text) const {
    if (text == "true" || text == "True" || text == "TRUE") return true;
    if (text == "false" || text == "False" || text == "FALSE") return false;
    if (const auto number = core_integer(mark, text)) return *number;

    const bool negative = text.starts_with('-');
    const std::string_view magnitude = std::string_view(text).substr(negative || text.starts_with('+') ? 1 : 0);
    if (magnitude == ".inf" || magnitude == ".Inf" || magnitude == ".INF") {
      return negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
    }
    if (text == ".nan" || text == ".NaN" || text == ".NAN") return std::numeric_limits<double>::quiet_NaN();
    if (!is_core_float(text)) return text;
    double number = 0;
    if (std::from_chars(magnitude.data(), magnitude.data() + magnitude.size(), number).ec != std::errc()) {
      fail(mark, "number " + quote(text, 40) + " is beyond the range of a double");
    }
    return negative ? -number : number;
  }

  std::optional<std::int64_t> core_integer(const YAML::Mark& mark, const std::string& text) const {
    std::string_view digits = text;
    int base = 10;
    if (digits.starts_with("0o") && all_of_digits(digits.substr(2), "01234567")) {
      base = 8;
      digits.remove_prefix(2);
    } else if (digits.starts_with("0x") && all_of_digits(digits.substr(2), "0123456789abcdefABCDEF")) {
      base = 16;
      digits.remove_prefix(2);
    } else {
      if (digits.starts_with('+')) digits.remove_prefix(1);
      const bool negative = digits.starts_with('-') && !text.starts_with('+');
      if (!all_of_digits(digits.substr(negative ? 1 : 0), "0123456789")) return std::nullopt;
    }
    std::int64_t number = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), number, base).ec != std::errc()) {
      fail(mark, "integer " + quote(text, 40) + " does not fit into 64 bits");
    }
    return number;
  }

  std::string_view text_;  // from line_ on
  int line_ = 1;
  std::string_view origin_;
  std::vector<OptionAssignment> assignments_;
  std::set<std::string, std::less<>> keys_;
  Place place_ = Place::kRoot;
  std::string key_;
  int key_line_ = 0;
  std::vector<std::string> list_;
  int documents_ = 0;
};

/// yaml-cpp guesses UTF-16 and UTF-32 and replaces what it cannot decode; this leaves it nothing to guess.
void check_characters(std::string_view text, std::string_view origin) {
  int line = 1;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t length = utf8_sequence_length(text, position);
    const auto byte = static_cast<unsigned char>(text[position]);
    if (length == 0) fail_at(origin, line, "invalid UTF-8");
    if (byte == 0x7F || (byte < 0x20 && byte != '\n' && byte != '\r' && byte != '\t')) {
      fail_at(origin, line, "control character " + quote(text.substr(position, 1)));
    }
    if (byte == '\n') ++line;
    position += length;
  }
}

}  // namespace

std::vector<OptionAssignment> parse_yaml_options(std::string_view text, std::string_view origin) {
  if (text.size() > kMaxBytes) {
    fail_at(origin, 1, "text has " + std::to_string(text.size()) + " bytes, the limit is " + std::to_string(kMaxBytes));
  }
  check_characters(text, origin);
  MappingReader reader(text, origin);
  try {
    // Inside quotes yaml-cpp refuses the end of a document, but not always the end of the text.
    std::istringstream stream(std::string(text) + (text.ends_with('\n') ? "...\n" : "\n...\n"));
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(reader)) {
    }
  } catch (const YAML::Exception& error) {
    fail_at(origin, error.mark.line + 1, escape_for_message(error.msg));
  }
  return reader.take();
}

std::vector<OptionAssignment> read_yaml_options(const std::filesystem::path& path) {
  return parse_yaml_options(read_file(path, kMaxBytes), path.string());
}

}  // namespace titer
