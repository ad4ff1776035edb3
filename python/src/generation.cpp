#include <pybind11/stl.h>
#include <titer/core/generate.h>

#include "bindings.h"
#include "options.h"

namespace titer::python {
namespace {

std::string reason(const Generation& self) { return std::string(finish_reason_name(self.finish_reason)); }

py::tuple state(const Generation& self) {
  return py::make_tuple(self.text, self.ids, self.log_probs, static_cast<int>(self.finish_reason), self.stop_string);
}

Generation from_state(const py::tuple& state) {
  return {state[0].cast<std::string>(), state[1].cast<std::vector<int64_t>>(), state[2].cast<std::vector<double>>(),
          static_cast<FinishReason>(state[3].cast<int>()), state[4].cast<std::optional<std::string>>()};
}

}  // namespace

void register_generation(py::module_& m) {
  py::class_<Generation>(m, "Generation", R"doc(
What a model answers to one prompt, and why it ends. ``str()`` gives the text.

Examples
--------
>>> answer = titer.generate(model, "Hello", max_new_tokens=4)
>>> answer.finish_reason
'length'
>>> len(answer.ids), len(answer.log_probs)
(4, 4)
)doc")
      .def_readonly("text", &Generation::text,
                    "The answer without special tokens, cut before the stop string that ended it.")
      .def_readonly("ids", &Generation::ids,
                    "All generated token ids: the end-of-sequence token, or the one that completed a stop string, is "
                    "the last where it came.")
      .def_readonly("log_probs", &Generation::log_probs,
                    "Natural logarithm of the probability of each id under the model itself: before min_new_tokens, "
                    "temperature, top_k and top_p change it.")
      .def_property_readonly("finish_reason", &reason,
                             "Why the answer ends: ``stop_token`` (an end-of-sequence token), ``stop_string``, "
                             "``length`` (max_new_tokens) or ``context`` (no room in the model's context).")
      .def_readonly("stop_string", &Generation::stop_string, "The stop string that ended the answer, or None.")
      .def("__str__", [](const Generation& self) { return self.text; })
      .def("__repr__",
           [](const Generation& self) {
             return py::str("Generation(text={!r}, finish_reason={!r}, {} tokens)")
                 .format(self.text, reason(self), self.ids.size());
           })
      .def("__eq__",
           [](const Generation& self, const py::object& other) {
             return py::isinstance<Generation>(other) && self == other.cast<const Generation&>();
           })
      .def("__hash__", [](const Generation& self) { return py::hash(py::str(self.text)); })
      .def(py::pickle(&state, &from_state));

  py::options signatures;
  signatures.disable_function_signatures();
  m.def(
      "generate",
      [](const CausalLM& model, const Tokenizer& tokenizer, const std::vector<std::vector<int64_t>>& prompts,
         const py::kwargs& options) {
        const auto parsed = from_keywords<GenerateOptions>(options, "generate");
        const py::gil_scoped_release no_gil;
        return generate(model, tokenizer, prompts, parsed, check_signals);
      },
      function_doc("generate(model: CausalLM, tokenizer: Tokenizer, prompts: list[list[int]]",
                   describe_options(GenerateOptions{}), "list[Generation]",
                   "Answers to prompts of token ids; use :func:`titer.generate`.")
          .c_str());
}

}  // namespace titer::python
