#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <titer/core/causal_lm.h>
#include <titer/core/weights_sha256.h>
#include <torch/csrc/utils/pybind.h>

#include "bindings.h"

namespace titer::python {
namespace {

std::optional<at::ScalarType> scalar_type(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  if (*name == "float32") return at::kFloat;
  if (*name == "bfloat16") return at::kBFloat16;
  if (*name == "float16") return at::kHalf;
  if (*name == "float64") return at::kDouble;
  throw py::value_error("[load_model] dtype must be float32, bfloat16, float16 or float64, got '" + *name + "'");
}

/// The name that load_model takes, and torch's own for the dtypes that only modules have.
std::string dtype_name(at::ScalarType type) {
  for (const char* name : {"float32", "bfloat16", "float16", "float64"})
    if (scalar_type(name) == type) return name;
  return c10::toString(type);
}

at::Device parse_device(const std::string& device) {
  try {
    return at::Device(device);
  } catch (const c10::Error& error) {
    throw py::value_error("[load_model] device '" + device +
                          "' is not one that torch knows; for example cpu or cuda:0");
  }
}

}  // namespace

void register_model(py::module_& m) {
  const py::call_guard<py::gil_scoped_release> release;
  py::class_<CausalLM, std::shared_ptr<CausalLM>>(
      m, "CausalLM", "Weights and configuration; use :func:`titer.load_model`.", py::dynamic_attr())
      .def(py::init([](const std::string& folder, const std::optional<std::string>& dtype, const std::string& device,
                       bool check_finite) {
             const auto type = scalar_type(dtype);
             const at::Device where = parse_device(device);
             const py::gil_scoped_release no_gil;
             return std::const_pointer_cast<CausalLM>(load_model(folder, type, where, check_finite));
           }),
           py::arg("folder"), py::kw_only(), py::arg("dtype") = py::none(), py::arg("device") = "cpu",
           py::arg("check_finite") = false)
      .def(py::init([](const std::string& config_json, const std::map<std::string, at::Tensor>& state_dict) {
             return std::make_shared<CausalLM>(parse_model_config(config_json, "module.config"),
                                               [&](const std::string& name) {
                                                 const auto found = state_dict.find(name);
                                                 return found == state_dict.end() ? at::Tensor() : found->second;
                                               });
           }),
           py::arg("config_json"), py::arg("state_dict"))
      .def(py::init([](const CausalLM& other) { return std::make_shared<CausalLM>(other); }), py::arg("other"))
      .def("__call__", &CausalLM::forward, py::arg("ids"), release, R"doc(
Logits of whole sequences, without caches or gradients.

Parameters
----------
ids : Tensor
    `[B, L]` int64 token ids.

Returns
-------
Tensor
    `[B, L, V]` in the model's dtype.

Examples
--------
>>> model(torch.tensor([[1, 2, 3]])).shape[:2]
torch.Size([1, 3])
)doc")
      .def("check_finite", &CausalLM::check_finite, release,
           "Raise ValueError naming the first weight that holds an infinity or NaN.")
      .def(
          "state_dict",
          [](const CausalLM& self) {
            return std::map<std::string, at::Tensor>(self.parameters().begin(), self.parameters().end());
          },
          "Every weight by its name, without a copy.")
      .def_property_readonly("fingerprint", &CausalLM::fingerprint,
                             "Differs between models: family, dtype, and a hash of a sample of the weights.")
      .def("weights_sha256", &weights_sha256, release,
           "Return the SHA-256 of every weight's name, dtype, shape and bytes, in hexadecimal digits.")
      .def_property_readonly("num_parameters", &CausalLM::num_parameters, "Number of parameters, tied ones once.")
      .def_property_readonly("weight_bytes", &CausalLM::weight_bytes, "Bytes of all parameters, tied ones once.")
      .def_property_readonly(
          "vocab_size", [](const CausalLM& self) { return self.config().vocab_size; }, "Rows of the embedding.")
      .def_property_readonly(
          "max_length", [](const CausalLM& self) { return self.config().max_position_embeddings; },
          "Longest sequence, in tokens.")
      .def_property_readonly(
          "family", [](const CausalLM& self) { return self.config().family; },
          "Architecture: ``model_type`` of config.json.")
      .def_property_readonly(
          "dtype", [](const CausalLM& self) { return dtype_name(self.dtype()); },
          "Name of the weights' dtype, for example ``float32``.")
      .def_property_readonly(
          "device", [](const CausalLM& self) { return self.device().str(); }, "Device of the weights.")
      .def_property_readonly(
          "eos_token_ids", [](const CausalLM& self) { return self.config().eos_token_ids; }, "Ids that end an answer.");
}

}  // namespace titer::python
