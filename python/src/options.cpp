#include "options.h"

#include <pybind11/stl.h>

namespace titer::python {
namespace {

std::string python_type(const OptionDescription& option) { return option.type == "choice" ? "str" : option.type; }

/// The UTF-8 of a str, which lone surrogates do not have.
std::string text_of(const py::handle& value, const std::string& name, std::string_view where) {
  Py_ssize_t size = 0;
  if (const char* bytes = PyUnicode_AsUTF8AndSize(value.ptr(), &size); bytes != nullptr)
    return {bytes, static_cast<size_t>(size)};
  PyErr_Clear();
  throw py::value_error("[" + std::string(where) + "] " + name + " must be text that UTF-8 can write, got " +
                        py::cast<std::string>(py::str(py::module_::import("builtins").attr("ascii")(value))));
}

}  // namespace

py::object to_python(const OptionValue& value) {
  return std::visit(
      [](const auto& held) -> py::object {
        if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::monostate>)
          return py::none();
        else
          return py::cast(held);
      },
      value);
}

std::vector<OptionAssignment> to_assignments(const py::kwargs& arguments, std::string_view where) {
  std::vector<OptionAssignment> out;
  for (const auto& [key, value] : arguments) {
    const std::string name = py::cast<std::string>(key);
    const auto add = [&](OptionValue converted) { out.push_back({name, std::move(converted), ""}); };
    if (value.is_none()) {
      add(std::monostate{});
    } else if (py::isinstance<py::bool_>(value)) {
      add(py::cast<bool>(value));
    } else if (py::isinstance<py::str>(value)) {
      add(text_of(value, name, where));
    } else if (py::isinstance<py::list>(value) || py::isinstance<py::tuple>(value)) {
      std::vector<std::string> texts;
      for (const py::handle item : value) {
        if (!py::isinstance<py::str>(item))
          throw py::type_error("[" + std::string(where) + "] " + name + " must be a list of str, got " +
                               py::cast<std::string>(py::repr(value)));
        texts.push_back(text_of(item, name, where));
      }
      add(std::move(texts));
    } else if (PyIndex_Check(value.ptr()) != 0) {  // int, numpy integers
      const auto index = py::reinterpret_steal<py::int_>(PyNumber_Index(value.ptr()));
      if (!index) throw py::error_already_set();
      int overflow = 0;
      const int64_t number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
      if (overflow != 0)
        throw py::value_error("[" + std::string(where) + "] " + name + " must fit 64 bits, got " +
                              py::cast<std::string>(py::repr(index)));
      add(number);
    } else if (PyNumber_Check(value.ptr()) != 0) {
      add(py::cast<double>(py::float_(py::reinterpret_borrow<py::object>(value))));
    } else {
      throw py::type_error("[" + std::string(where) + "] " + name + " has type " +
                           py::cast<std::string>(py::str(py::type::of(value).attr("__name__"))) +
                           "; expected bool, int, float, str, list of str or None");
    }
  }
  return out;
}

std::string options_repr(std::string_view name, const std::vector<OptionDescription>& options,
                         const std::vector<OptionDescription>& defaults) {
  std::string out(name);
  out += "(";
  bool first = true;
  for (size_t i = 0; i < options.size(); ++i) {
    if (options[i].value == defaults[i].value) continue;
    out += (first ? "" : ", ") + options[i].name + "=" + py::cast<std::string>(py::repr(to_python(options[i].value)));
    first = false;
  }
  return out + ")";
}

std::string function_doc(std::string_view head, const std::vector<OptionDescription>& options, std::string_view returns,
                         std::string_view summary) {
  std::string signature = std::string(head) + ", *";
  std::string parameters;
  for (const OptionDescription& option : options) {
    const std::string value = py::cast<std::string>(py::repr(to_python(option.value)));
    signature += ", " + option.name + ": " + python_type(option) + " = " + value;
    parameters += option.name + " : " + python_type(option) + ", default " + value + "\n    " + option.doc;
    if (!option.unit.empty()) parameters += " Unit: " + option.unit + ".";
    if (!option.range_text.empty()) parameters += " Must be " + option.range_text + ".";
    if (!option.choices.empty()) {
      parameters += " One of";
      for (size_t i = 0; i < option.choices.size(); ++i)
        parameters += (i == 0 ? " " : ", ") + ("``" + option.choices[i] + "``");
      parameters += ".";
    }
    parameters += "\n";
  }
  const std::string above = summary.empty() ? "" : std::string(summary) + "\n\n";
  return signature + ") -> " + std::string(returns) + "\n\n" + above + "Parameters\n----------\n" + parameters;
}

py::list describe(const std::vector<OptionDescription>& options) {
  py::list out;
  for (const OptionDescription& option : options) {
    py::dict entry;
    entry["name"] = option.name;
    entry["type"] = option.type;
    entry["unit"] = option.unit;
    entry["doc"] = option.doc;
    entry["range"] = option.range_text;
    entry["choices"] = option.choices;
    entry["default"] = to_python(option.value);
    out.append(entry);
  }
  return out;
}

}  // namespace titer::python
