// One register function per area; module.cpp calls them in order of dependence.
#pragma once

#include <pybind11/pybind11.h>

namespace titer::python {

namespace py = pybind11;

void register_errors(py::module_& m);
void register_files(py::module_& m);
void register_dataset(py::module_& m);
void register_tokenizer(py::module_& m);
void register_model(py::module_& m);
void register_generation(py::module_& m);
void register_prompt(py::module_& m);
void register_shard(py::module_& m);
void register_session(py::module_& m);
void register_attacks(py::module_& m);
void register_training(py::module_& m);

/// Raises KeyboardInterrupt (or what a signal handler raised) if a signal is pending. Call without the GIL.
void check_signals();

}  // namespace titer::python
