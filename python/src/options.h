// Options aggregates as Python keyword arguments: constructor, signature, docstring, repr and mapping, all derived from
// the one visit() of the aggregate.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <titer/core/options.h>
#include <titer/core/yaml_options.h>

#include <filesystem>
#include <optional>
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

/// Adds what a class that consists of its options has: the constructor, `repr`, `options`, `describe`, `from_config`.
///
/// @param make       makes an object of options
/// @param configure  gives an object's options
template <typename Options, typename Class, typename Make, typename Configure>
void register_configured(Class& python_class, const char* name, const char* where, const Make& make,
                         const Configure& configure) {
  using Object = typename Class::type;
  const std::string python_name = name;
  const std::string init = function_doc("__init__(self", describe_options(Options{}), "None");
  const auto from_python = [=](const py::kwargs& options) { return make(from_keywords<Options>(options, where)); };
  {
    py::options signatures;
    signatures.disable_function_signatures();
    python_class.def(py::init(from_python), init.c_str());
  }
  python_class
      .def("__repr__",
           [=](const Object& self) {
             return options_repr(python_name, describe_options(configure(self)), describe_options(Options{}));
           })
      .def_property_readonly(
          "options",
          [=](const Object& self) {
            py::dict out;
            for (const OptionDescription& option : describe_options(configure(self)))
              out[py::str(option.name)] = to_python(option.value);
            return out;
          },
          "All options with their values.")
      .def_static(
          "describe", [] { return describe(describe_options(Options{})); },
          "Name, type, unit, range, default and meaning of every option.")
      .def_static(
          "from_config",
          [=](const std::optional<std::filesystem::path>& path, const std::vector<std::string>& assignments) {
            Options options;
            if (path) set_options(options, read_yaml_options(*path), where);
            std::vector<OptionAssignment> parsed;
            for (const std::string& text : assignments) parsed.push_back(parse_option_text(Options{}, text, where));
            set_options(options, parsed, where);
            return make(options);
          },
          py::arg("path") = py::none(), py::arg("assignments") = std::vector<std::string>{},
          "Options of a YAML file, then of ``key=value`` texts.");
}

}  // namespace titer::python
