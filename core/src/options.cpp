// The visitors behind options.h: one describes, one assigns, one checks. Everything else is phrased with the first.
#include "titer/core/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>

#include "json.h"
#include "nearest_name.h"
#include "quote.h"

namespace titer {
namespace {

constexpr std::string_view kBool = "bool";
constexpr std::string_view kInt = "int";
constexpr std::string_view kFloat = "float";
constexpr std::string_view kString = "str";
constexpr std::string_view kStringList = "list[str]";
constexpr std::string_view kOptionalInt = "int | None";
constexpr std::string_view kChoice = "choice";

/// The shortest text that reads back to the same double; integral values as integers are written.
std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, result.ptr};
}

/// A value as an error shows it.
std::string shown(const OptionValue& value) {
  struct Show {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool flag) const { return flag ? "true" : "false"; }
    std::string operator()(std::int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const {
      std::string text = number_text(number);
      // 512.0, so that a float refused as an integer does not look like one
      if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
      return text;
    }
    std::string operator()(const std::string& text) const { return quote(text); }
    std::string operator()(const std::vector<std::string>& list) const {
      return list.size() == 1 ? "a list of 1 text" : "a list of " + std::to_string(list.size()) + " texts";
    }
  };
  return std::visit(Show{}, value);
}

std::string range_text(const OptionRange& range) {
  const bool has_min = !std::isinf(range.min);
  const bool has_max = !std::isinf(range.max);
  if (has_min && has_max && !range.min_exclusive && !range.max_exclusive) {
    return "between " + number_text(range.min) + " and " + number_text(range.max);
  }
  std::string text;
  if (has_min) text += (range.min_exclusive ? "greater than " : "at least ") + number_text(range.min);
  if (has_min && has_max) text += " and ";
  if (has_max) text += (range.max_exclusive ? "less than " : "at most ") + number_text(range.max);
  return text;
}

/// long double holds every int64 exactly on x86; elsewhere it is at least as wide as double.
bool in_range(long double value, const OptionRange& range) {
  if (range.min_exclusive ? value <= range.min : value < range.min) return false;
  return !(range.max_exclusive ? value >= range.max : value > range.max);
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// Fails as `[where] name must be ..., got ... (origin)`.
[[noreturn]] void fail_value(std::string_view where, std::string_view name, std::string_view expected,
                             std::string_view got, std::string_view origin) {
  std::string message = "[" + std::string(where) + "] " + std::string(name) + " must be " + std::string(expected) +
                        ", got " + std::string(got);
  if (!origin.empty()) message += " (" + escape_for_message(origin, 1024) + ")";
  throw std::invalid_argument(message);
}

[[noreturn]] void fail_unknown(std::string_view where, std::string_view name, std::string_view origin,
                               const std::vector<OptionDescription>& known) {
  std::vector<std::string_view> names;
  for (const auto& option : known) names.push_back(option.name);
  std::string message =
      "[" + std::string(where) + "] unknown option " + quote(name, 64) + hint_for_unknown(name, names);
  if (!origin.empty()) message += " (" + escape_for_message(origin, 1024) + ")";
  throw std::invalid_argument(message);
}

const OptionDescription& find_option(const std::vector<OptionDescription>& known, std::string_view name,
                                     std::string_view where, std::string_view origin) {
  const auto found = std::find_if(known.begin(), known.end(), [&](const auto& option) { return option.name == name; });
  if (found == known.end()) fail_unknown(where, name, origin, known);
  return *found;
}

class DescribingVisitor final : public OptionVisitor {
 public:
  std::vector<OptionDescription> descriptions;

  void option(const OptionInfo& info, bool& value) override { add(info, kBool, value); }
  void option(const OptionInfo& info, std::int64_t& value) override { add(info, kInt, value); }
  void option(const OptionInfo& info, double& value) override { add(info, kFloat, value); }
  void option(const OptionInfo& info, std::string& value) override { add(info, kString, value); }
  void option(const OptionInfo& info, std::vector<std::string>& value) override { add(info, kStringList, value); }
  void option(const OptionInfo& info, std::optional<std::int64_t>& value) override {
    add(info, kOptionalInt, value ? OptionValue(*value) : OptionValue());
  }

 protected:
  void choice(const OptionInfo& info, std::int64_t& index) override {
    if (index < 0 || index >= static_cast<std::int64_t>(info.choices.size())) {
      fail_value("options", info.name, "one of its " + std::to_string(info.choices.size()) + " enumerators",
                 std::to_string(index), "");
    }
    add(info, kChoice, std::string(info.choices[static_cast<std::size_t>(index)]));
  }

 private:
  void add(const OptionInfo& info, std::string_view type, OptionValue value) {
    descriptions.push_back({.name = std::string(info.name),
                            .type = std::string(type),
                            .unit = std::string(info.unit),
                            .doc = std::string(info.doc),
                            .range = info.range,
                            .range_text = range_text(info.range),
                            .choices = {info.choices.begin(), info.choices.end()},
                            .value = std::move(value)});
  }
};

/// Fails unless `value` has exactly the option's type and is within its range.
void check_value(const OptionDescription& option, const OptionValue& value, std::string_view where,
                 std::string_view origin) {
  const auto fail = [&](std::string_view expected) { fail_value(where, option.name, expected, shown(value), origin); };
  const auto check_range = [&](long double number) {
    if (!in_range(number, option.range)) fail(option.range_text);
  };
  const auto check_text = [&](const std::string& text) {
    if (first_invalid_utf8(text) != text.size()) fail("valid UTF-8");
  };
  const auto* integer = std::get_if<std::int64_t>(&value);
  const auto* text = std::get_if<std::string>(&value);

  if (option.type == kBool) {
    if (!std::holds_alternative<bool>(value)) fail("true or false");
  } else if (option.type == kInt) {
    if (integer == nullptr) fail("an integer");
    check_range(static_cast<long double>(*integer));
  } else if (option.type == kOptionalInt) {
    if (std::holds_alternative<std::monostate>(value)) return;
    if (integer == nullptr) fail("an integer or null");
    check_range(static_cast<long double>(*integer));
  } else if (option.type == kFloat) {
    const auto* number = std::get_if<double>(&value);
    if (number == nullptr && integer == nullptr) fail("a number");
    if (number != nullptr && !std::isfinite(*number)) fail("finite");
    check_range(number != nullptr ? static_cast<long double>(*number) : static_cast<long double>(*integer));
  } else if (option.type == kString) {
    const bool scalar = !std::holds_alternative<std::vector<std::string>>(value);
    if (text == nullptr) fail(scalar ? "a text (quote it)" : "a text");
    check_text(*text);
  } else if (option.type == kStringList) {
    const auto* list = std::get_if<std::vector<std::string>>(&value);
    if (list == nullptr) fail("a list of texts");
    for (const auto& element : *list) check_text(element);
  } else {
    const auto& choices = option.choices;
    if (text == nullptr || std::find(choices.begin(), choices.end(), *text) == choices.end()) {
      fail("one of " + joined(choices));
    }
  }
}

/// Writes one checked value into the option of that name.
class AssigningVisitor final : public OptionVisitor {
 public:
  AssigningVisitor(std::string_view name, const OptionValue& value) : name_(name), value_(value) {}

  void option(const OptionInfo& info, bool& value) override { assign(info, value); }
  void option(const OptionInfo& info, std::int64_t& value) override { assign(info, value); }
  void option(const OptionInfo& info, double& value) override {
    if (info.name != name_) return;
    const auto* integer = std::get_if<std::int64_t>(&value_);
    value = integer != nullptr ? static_cast<double>(*integer) : std::get<double>(value_);
  }
  void option(const OptionInfo& info, std::string& value) override { assign(info, value); }
  void option(const OptionInfo& info, std::vector<std::string>& value) override { assign(info, value); }
  void option(const OptionInfo& info, std::optional<std::int64_t>& value) override {
    if (info.name != name_) return;
    value.reset();
    if (const auto* integer = std::get_if<std::int64_t>(&value_)) value = *integer;
  }

 protected:
  void choice(const OptionInfo& info, std::int64_t& index) override {
    if (info.name != name_) return;
    const auto found = std::find(info.choices.begin(), info.choices.end(), std::get<std::string>(value_));
    index = found - info.choices.begin();
  }

 private:
  template <typename Value>
  void assign(const OptionInfo& info, Value& value) {
    if (info.name == name_) value = std::get<Value>(value_);
  }

  std::string_view name_;
  const OptionValue& value_;
};

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);  // from_chars knows no plus
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// A command-line text as the option's type; text that does not read as the type stays text, and check_value refuses
/// it.
OptionValue value_from_text(const OptionDescription& option, const std::string& text) {
  const bool is_none = text == "none" || text == "null";
  if (option.type == kBool && text == "true") return true;
  if (option.type == kBool && text == "false") return false;
  if (option.type == kOptionalInt && is_none) return std::monostate{};
  if (option.type == kInt || option.type == kOptionalInt) {
    if (const auto number = parse_number<std::int64_t>(text)) return *number;
  }
  if (option.type == kFloat) {
    if (const auto number = parse_number<double>(text)) return *number;
  }
  if (option.type == kStringList) {
    if (!text.starts_with('[')) return std::vector<std::string>{text};
    const nlohmann::json list = parse_json(text, "command line", {.max_bytes = std::size_t{1} << 20U, .max_depth = 1});
    std::vector<std::string> elements;
    for (const auto& element : list) {
      if (!element.is_string()) return text;
      elements.push_back(element.get<std::string>());
    }
    return elements;
  }
  return text;
}

struct ToJson {
  nlohmann::ordered_json operator()(std::monostate) const { return nullptr; }
  template <typename Value>
  nlohmann::ordered_json operator()(const Value& value) const {
    return value;
  }
};

}  // namespace

namespace detail {

std::vector<OptionDescription> describe_options(const VisitOptions& visit) {
  DescribingVisitor visitor;
  visit(visitor);
  return std::move(visitor.descriptions);
}

void set_options(const VisitOptions& visit, std::span<const OptionAssignment> assignments, std::string_view where) {
  const auto known = detail::describe_options(visit);
  for (std::size_t i = 0; i < assignments.size(); ++i) {
    const auto& [name, value, origin] = assignments[i];
    check_value(find_option(known, name, where, origin), value, where, origin);
    for (const auto& earlier : assignments.first(i)) {
      if (earlier.name == name) {
        throw std::invalid_argument("[" + std::string(where) + "] " + name + " is given twice" +
                                    (origin.empty() ? "" : " (" + escape_for_message(origin, 1024) + ")"));
      }
    }
    AssigningVisitor visitor(name, value);
    visit(visitor);
  }
}

void check_options(const VisitOptions& visit, std::string_view where) {
  for (const auto& option : detail::describe_options(visit)) check_value(option, option.value, where, "");
}

OptionAssignment parse_option_text(const VisitOptions& visit, std::string_view text, std::string_view where) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    throw std::invalid_argument("[" + std::string(where) + "] expected key=value, got " + quote(text));
  }
  const std::string name(text.substr(0, equals));
  const auto known = detail::describe_options(visit);
  const auto& option = find_option(known, name, where, "command line");
  OptionAssignment assignment{name, value_from_text(option, std::string(text.substr(equals + 1))), "command line"};
  check_value(option, assignment.value, where, assignment.origin);
  return assignment;
}

std::string options_to_json(const VisitOptions& visit) {
  auto object = nlohmann::ordered_json::object();
  for (const auto& option : detail::describe_options(visit)) {
    check_value(option, option.value, "options", "");
    object[option.name] = std::visit(ToJson{}, option.value);
  }
  return object.dump();
}

}  // namespace detail
}  // namespace titer
