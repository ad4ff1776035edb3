// Options aggregates as Python keyword arguments: constructor, signature, docstring, repr and mapping, all derived from
// the one visit() of the aggregate.
#pragma once

#include <pybind11/pybind11.h>
#include <titer/core/options.h>

#include <string>
#include <vector>

namespace titer::python {

namespace py = pybind11;

/// Keyword arguments -> assignments. Raises TypeError where a value is of no type that options have.
std::vector<OptionAssignment> to_assignments(const py::kwargs& arguments, std::string_view where);

py::object to_python(const OptionValue& value);

/// "Name(num_steps=250, ...)": what differs from the defaults.
std::string options_repr(std::string_view name, const std::vector<OptionDescription>& options,
                         const std::vector<OptionDescription>& defaults);

/// "__init__(self, *, num_steps: int = 250, ...) -> None" and a NumPy-style parameter list.
///
/// @param head     what comes before the options: "__init__(self"
/// @param returns  what comes after: "None"
/// @param summary  stands above the parameters where there is one
std::string function_doc(std::string_view head, const std::vector<OptionDescription>& options, std::string_view returns,
                         std::string_view summary = "");

/// [{name, type, unit, doc, range, choices, default}, ...] for command lines and documentation.
py::list describe(const std::vector<OptionDescription>& options);

template <typename Options>
Options from_keywords(const py::kwargs& arguments, std::string_view where) {
  Options options;
  set_options(options, to_assignments(arguments, where), where);
  return options;
}

}  // namespace titer::python
