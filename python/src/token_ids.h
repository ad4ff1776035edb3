// Token ids as Python gives them: a tensor, or sequences of int such as Prompt.slot_ids.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/utils/pybind.h>

#include <string>

namespace titer::python {

/// An argument of a binding. What receives the tensor checks its dtype, shape and range.
struct TokenIds {
  at::Tensor tensor;
};

}  // namespace titer::python

namespace pybind11::detail {

template <>
struct type_caster<titer::python::TokenIds> {
  PYBIND11_TYPE_CASTER(titer::python::TokenIds, const_name("torch.Tensor | collections.abc.Sequence[int] | "
                                                           "collections.abc.Sequence[collections.abc.Sequence[int]]"));

  bool load(handle source, bool convert) {
    make_caster<at::Tensor> tensor;
    if (tensor.load(source, convert)) {
      value.tensor = cast_op<at::Tensor&>(tensor);
      return true;
    }
    try {  // on the CPU whatever the default device is
      value.tensor = module_::import("torch").attr("as_tensor")(source, arg("device") = "cpu").cast<at::Tensor>();
      return true;
    } catch (const error_already_set& error) {
      const std::string message = "[session] token ids must be an int64 tensor or lists of int, got " +
                                  std::string(repr(type::of(source))) + ": " + std::string(str(error.value()));
      if (error.matches(PyExc_ValueError)) throw value_error(message);  // rows of different lengths
      if (error.matches(PyExc_TypeError) || error.matches(PyExc_RuntimeError)) throw type_error(message);
      throw;
    }
  }
};

}  // namespace pybind11::detail
