// Options described once. An options type is a plain aggregate with default member initialisers and one member
// `void visit(OptionVisitor&)` that names each field with its unit, range and doc; YAML files, the command line, Python
// constructors and signatures, --help and the run log are all derived from that.
//
//   struct GcgOptions {
//     std::int64_t search_width = 512;
//     void visit(OptionVisitor& visitor) {
//       visitor.option({.name = "search_width", .unit = "candidates", .doc = "...", .range = {.min = 1}},
//       search_width);
//     }
//   };
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "titer/export.h"

namespace titer {

/// Allowed values of a number, or of the number inside an optional; unlimited where nothing is said.
struct OptionRange {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_exclusive = false;
  bool max_exclusive = false;
};

/// What is known of an option besides its type. The texts and the choices must outlive every use: literals.
struct OptionInfo {
  std::string_view name = {};
  std::string_view unit = {};  ///< "tokens", "candidates"; empty for pure numbers and texts
  std::string_view doc = {};   ///< one sentence
  OptionRange range = {};
  std::span<const std::string_view> choices = {};  ///< for enumerations: entry i is the name of value i
};

/// Walks over the fields of an options aggregate. One overload per supported type; enumerations, whose values must
/// count from 0, arrive as the index of their choice.
class TITER_EXPORT OptionVisitor {
 public:
  virtual ~OptionVisitor() = default;
  virtual void option(const OptionInfo& info, bool& value) = 0;
  virtual void option(const OptionInfo& info, std::int64_t& value) = 0;
  virtual void option(const OptionInfo& info, double& value) = 0;
  virtual void option(const OptionInfo& info, std::string& value) = 0;
  virtual void option(const OptionInfo& info, std::vector<std::string>& value) = 0;
  virtual void option(const OptionInfo& info, std::optional<std::int64_t>& value) = 0;

  template <typename Enum>
  requires std::is_enum_v<Enum>
  void option(const OptionInfo& info, Enum& value) {
    auto index = static_cast<std::int64_t>(value);
    choice(info, index);
    value = static_cast<Enum>(index);
  }

 protected:
  virtual void choice(const OptionInfo& info, std::int64_t& index) = 0;
};

/// A value before it meets its option: from YAML, the command line, Python or JSON. monostate is null (None), which
/// only an optional accepts. A choice is its name.
using OptionValue = std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<std::string>>;

struct OptionAssignment {
  std::string name;
  OptionValue value;
  std::string origin = {};  ///< "gcg.yaml:12", "command line"; appears in errors, may be empty
};

/// One option as users see it.
struct OptionDescription {
  std::string name;
  std::string type;  ///< "bool", "int", "float", "str", "list[str]", "int | None" or "choice"
  std::string unit;
  std::string doc;
  OptionRange range;
  std::string range_text;            ///< "at least 1", "greater than 0 and at most 1"; empty if unlimited
  std::vector<std::string> choices;  ///< empty unless type is "choice"
  OptionValue value;                 ///< the default, if a default-constructed aggregate was described
};

template <typename Options>
concept VisitableOptions = std::copyable<Options> && requires(Options& options, OptionVisitor& visitor) {
  options.visit(visitor);
};

namespace detail {
using VisitOptions = std::function<void(OptionVisitor&)>;
TITER_EXPORT std::vector<OptionDescription> describe_options(const VisitOptions& visit);
TITER_EXPORT void set_options(const VisitOptions& visit, std::span<const OptionAssignment> assignments,
                              std::string_view where);
TITER_EXPORT void check_options(const VisitOptions& visit, std::string_view where);
TITER_EXPORT OptionAssignment parse_option_text(const VisitOptions& visit, std::string_view text,
                                                std::string_view where);
TITER_EXPORT std::string options_to_json(const VisitOptions& visit);
}  // namespace detail

/// All options in the order of visit(), with the values that `options` holds.
template <VisitableOptions Options>
std::vector<OptionDescription> describe_options(Options options) {
  return detail::describe_options([&](OptionVisitor& visitor) { options.visit(visitor); });
}

/// Assigns all of `assignments` or, on an error, none. An integer is accepted where a float is wanted; nothing else is
/// converted. Errors read `[where] search_width must be at least 1, got -3 (gcg.yaml:12)`.
/// @throws std::invalid_argument on an unknown name (naming the nearest one), a name given twice, a wrong type, a value
///     out of range, NaN, infinity or text that is not UTF-8
template <VisitableOptions Options>
void set_options(Options& options, std::span<const OptionAssignment> assignments, std::string_view where) {
  Options changed = options;
  detail::set_options([&](OptionVisitor& visitor) { changed.visit(visitor); }, assignments, where);
  options = std::move(changed);
}

/// Checks the values that a C++ caller wrote into the aggregate as set_options would have.
/// @throws std::invalid_argument
template <VisitableOptions Options>
void check_options(Options options, std::string_view where) {
  detail::check_options([&](OptionVisitor& visitor) { options.visit(visitor); }, where);
}

/// Reads `key=value` from a command line by the type of the option: true or false; numbers; `none` for an empty
/// optional; a list as a JSON array of strings (`["a", "b"]`) or as its only element; a text or choice as it stands.
/// @throws std::invalid_argument if there is no '=', the name is unknown or the value does not read as the type
template <VisitableOptions Options>
OptionAssignment parse_option_text(Options options, std::string_view text, std::string_view where) {
  return detail::parse_option_text([&](OptionVisitor& visitor) { options.visit(visitor); }, text, where);
}

/// One JSON object on one line, keys in the order of visit(), choices by name, empty optionals as null. Equal options
/// give equal text, and floats read back to the same bits.
/// @throws std::invalid_argument if a value could not have been set (NaN, invalid UTF-8, an enumerator without a
/// choice)
template <VisitableOptions Options>
std::string options_to_json(Options options) {
  return detail::options_to_json([&](OptionVisitor& visitor) { options.visit(visitor); });
}

}  // namespace titer
