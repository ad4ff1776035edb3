#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <titer/core/folder_file.h>

#include "bindings.h"

namespace titer::python {

void register_files(py::module_& m) {
  const py::call_guard<py::gil_scoped_release> release;
  m.def("folder_file", &folder_file, py::arg("folder"), py::arg("name"), release,
        "Path of a file of a model folder, if it does not lead out of it.");
  m.def(
      "read_folder_file",
      [](const std::filesystem::path& folder, const std::string& name, std::size_t max_bytes) {
        const auto content = read_folder_file(folder, name, max_bytes);
        return content ? std::optional<py::bytes>(*content) : std::nullopt;
      },
      py::arg("folder"), py::arg("name"), py::arg("max_bytes"), "Content of such a file, None if there is none.");
  m.def("read_folder_json", &read_folder_json, py::arg("folder"), py::arg("name"), py::arg("max_bytes"),
        py::arg("without") = std::vector<std::string>(), release,
        "A JSON object from such a file as text that every parser reads alike, None if there is none.");
}

}  // namespace titer::python
