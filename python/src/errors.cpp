// C++ exceptions -> Python exceptions, in one place. pybind11 itself maps std::invalid_argument to ValueError and
// std::out_of_range to IndexError; this adds torch's classes, without their C++ backtrace, and errors of the system.
#include <c10/util/Exception.h>

#include <string>
#include <system_error>

#include "bindings.h"

namespace titer::python {

void register_errors(py::module_&) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      std::rethrow_exception(pointer);
    } catch (const c10::IndexError& e) {
      PyErr_SetString(PyExc_IndexError, e.what_without_backtrace());
    } catch (const c10::ValueError& e) {
      PyErr_SetString(PyExc_ValueError, e.what_without_backtrace());
    } catch (const c10::TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what_without_backtrace());
    } catch (const c10::NotImplementedError& e) {
      PyErr_SetString(PyExc_NotImplementedError, e.what_without_backtrace());
    } catch (const c10::OutOfMemoryError& e) {
      PyErr_SetString(PyExc_MemoryError, e.what_without_backtrace());
    } catch (const c10::Error& e) {
      PyErr_SetString(PyExc_RuntimeError, e.what_without_backtrace());
    } catch (const std::system_error& e) {
      // OSError(errno, text) makes Python choose FileNotFoundError, PermissionError, ...
      const py::tuple arguments = py::make_tuple(e.code().value(), std::string(e.what()));
      PyErr_SetObject(PyExc_OSError, arguments.ptr());
    }
  });
}

void check_signals() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace titer::python
