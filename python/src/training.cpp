#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <titer/core/finetune.h>
#include <torch/csrc/utils/pybind.h>

#include "bindings.h"
#include "options.h"

namespace titer::python {
namespace {

/// pybind11 would copy a bare vector into a list.
struct SharedData {
  TrainingData sequences;
};

using PythonSpan = std::pair<int64_t, int64_t>;
using PythonSequence = std::pair<std::vector<int64_t>, std::vector<PythonSpan>>;

TrainingSequence from_python(const PythonSequence& sequence) {
  TrainingSequence out{sequence.first, {}};
  for (const auto& [begin, end] : sequence.second) out.answers.push_back({begin, end});
  return out;
}

PythonSequence to_python(const TrainingSequence& sequence) {
  PythonSequence out{sequence.ids, {}};
  for (const TrainingSequence::Span& answer : sequence.answers) out.second.emplace_back(answer.begin, answer.end);
  return out;
}

const char* status_name(FinetuneResult::Status status) {
  switch (status) {
    case FinetuneResult::Status::kCompleted:
      return "completed";
    case FinetuneResult::Status::kStopped:
      return "stopped";
    case FinetuneResult::Status::kDiverged:
      return "diverged";
    default:
      return "running";
  }
}

/// A DataFrame with one row per step.
py::object trace_frame(const FinetuneResult& result) {
  py::dict columns;
  const auto column = [&](const char* name, auto field) {
    py::list values;
    for (const FinetuneStep& step : result.trace) values.append(step.*field);
    columns[name] = values;
  };
  column("step", &FinetuneStep::step);
  column("loss", &FinetuneStep::loss);
  column("learning_rate", &FinetuneStep::learning_rate);
  column("grad_norm", &FinetuneStep::grad_norm);
  column("answer_tokens", &FinetuneStep::answer_tokens);
  return py::module_::import("pandas").attr("DataFrame")(columns);
}

using PythonRun = std::pair<FinetuneOptions, SharedData>;

Finetuning run_finetune(const CausalLM& model, const std::vector<PythonRun>& runs, const py::object& progress,
                        const std::optional<std::filesystem::path>& checkpoint, bool resume, int64_t micro_batch_tokens,
                        const std::string& template_hash) {
  std::vector<FinetuneSpec> specs;
  for (const auto& [options, data] : runs) specs.push_back({options, data.sequences});
  FinetuneRun run;
  run.poll = check_signals;
  run.resume = resume;
  run.micro_batch_tokens = micro_batch_tokens;
  run.template_hash = template_hash;
  if (checkpoint) run.checkpoint = *checkpoint;
  if (!progress.is_none()) {
    run.progress = [&progress](int64_t index, const FinetuneStep& step, int64_t num_steps) {
      const py::gil_scoped_acquire gil;
      const py::object answer = progress(index, step, num_steps);
      return answer.is_none() || py::cast<bool>(answer);
    };
  }
  const py::gil_scoped_release release;
  return finetune(model, specs, run);
}

}  // namespace

void register_training(py::module_& m) {
  py::class_<SharedData>(m, "TrainingData", R"doc(
Token ids with the spans of their answers; :func:`titer.training.tokenise` makes it of records.

Parameters
----------
sequences : list of (ids, answers)
    Token ids, and `(begin, end)` of each answer in them.

Examples
--------
>>> data = titer.training.TrainingData([([5, 6, 7, 8], [(2, 4)])])
>>> len(data), data[0]
(1, ([5, 6, 7, 8], [(2, 4)]))
)doc")
      .def(py::init([](const std::vector<PythonSequence>& sequences) {
             auto out = std::make_shared<std::vector<TrainingSequence>>();
             for (const PythonSequence& sequence : sequences) out->push_back(from_python(sequence));
             return SharedData{std::move(out)};
           }),
           py::arg("sequences"))
      .def("__len__", [](const SharedData& self) { return self.sequences->size(); })
      .def(
          "__getitem__",
          [](const SharedData& self, int64_t index) {
            const auto size = static_cast<int64_t>(self.sequences->size());
            if (index < -size || index >= size)
              throw py::index_error("[TrainingData] no sequence " + std::to_string(index));
            return to_python((*self.sequences)[static_cast<size_t>(index < 0 ? index + size : index)]);
          },
          py::arg("index"));

  py::class_<FinetuneOptions> options(m, "FinetuneOptions", R"doc(
What a fine-tuning run is, but for its data.

Examples
--------
>>> titer.training.FinetuneOptions(lora_rank=8, learning_rate=1e-3)
FinetuneOptions(lora_rank=8, learning_rate=0.001)
)doc");
  register_configured<FinetuneOptions>(
      options, "FinetuneOptions", "finetune", [](const FinetuneOptions& self) { return self; },
      [](const FinetuneOptions& self) { return self; });

  py::class_<FinetuneStep>(m, "FinetuneStep", "One step of a run, as progress callbacks see it.")
      .def_readonly("step", &FinetuneStep::step, "Steps done.")
      .def_readonly("loss", &FinetuneStep::loss, "Mean over the answers' tokens, nats, before the step.")
      .def_readonly("learning_rate", &FinetuneStep::learning_rate, "Of AdamW in the step.")
      .def_readonly("grad_norm", &FinetuneStep::grad_norm, "Length of the gradient before it was shortened.")
      .def_readonly("answer_tokens", &FinetuneStep::answer_tokens, "Tokens that were learned.");

  py::class_<LoraAdapter>(m, "LoraAdapter", "A trained low-rank adapter (LoRA, arXiv 2106.09685).")
      .def_readonly("rank", &LoraAdapter::rank, "Rank r of its factors.")
      .def_readonly("alpha", &LoraAdapter::alpha, "Products of factors are scaled by alpha / r.")
      .def_readonly("use_rslora", &LoraAdapter::use_rslora, "They are scaled by alpha / sqrt(r) instead.")
      .def_readonly("dropout", &LoraAdapter::dropout, "Share of inputs that its training dropped.")
      .def_readonly("target_modules", &LoraAdapter::target_modules, "Last parts of the names of its layers.")
      .def_readwrite("base", &LoraAdapter::base,
                     ":meth:`CausalLM.weights_sha256` of what it was trained on; empty: unknown, and fits any model.")
      .def_readwrite("template_hash", &LoraAdapter::template_hash,
                     "SHA-256 of the chat template of its data; empty: none, or unknown.")
      .def_property_readonly(
          "scale", [](const LoraAdapter& self) { return lora_scale(self.alpha, self.rank, self.use_rslora); },
          "What products of factors are multiplied by.")
      .def_property_readonly(
          "modules",
          [](const LoraAdapter& self) {
            std::map<std::string, std::pair<at::Tensor, at::Tensor>> out;
            for (const auto& [name, factors] : self.modules) out[name] = {factors.a, factors.b};
            return out;
          },
          "Factors `(A, B)` of each layer, `[r, in]` and `[out, r]` float32.")
      .def("save", &save_lora_adapter, py::arg("folder"), py::arg("base_name") = "", R"doc(
Write the folder that PEFT loads: `adapter_config.json` and `adapter_model.safetensors`, which also names base and
template.

Parameters
----------
folder : path
    Made where it does not exist; other files in it stay.
base_name : str
    What the configuration calls the base: `base_model_name_or_path`.
)doc")
      .def_static("load", &load_lora_adapter, py::arg("folder"), R"doc(
Read a folder that :meth:`save` or PEFT wrote.

Raises
------
ValueError
    If it holds something else than plain LoRA of linear layers; the message names file and key.
OSError
    If a file cannot be read.
)doc")
      .def("__repr__", [](const LoraAdapter& self) {
        return py::str("LoraAdapter(rank={}, alpha={:g}, {} layers)")
            .format(self.rank, self.alpha, self.modules.size());
      });

  py::class_<FinetuneResult>(m, "FinetuneResult", "What one fine-tuning run has learned.")
      .def_property_readonly(
          "status", [](const FinetuneResult& self) { return status_name(self.status); },
          "``completed``, ``stopped`` by the progress callback, or ``diverged``: then what it had learned before is "
          "here.")
      .def_readonly("message", &FinetuneResult::message, "What went wrong, if anything.")
      .def_readonly("steps", &FinetuneResult::trace, "One :class:`FinetuneStep` per step.")
      .def_property_readonly("trace", &trace_frame, "One row per step, a ``pandas.DataFrame``.")
      .def_readonly("adapter", &FinetuneResult::adapter, "What a run of ``lora`` has learned, or None.")
      .def_property_readonly(
          "model", [](const FinetuneResult& self) { return std::const_pointer_cast<CausalLM>(self.model); },
          "What a run of ``full`` has learned, or None.")
      .def("__repr__", [](const FinetuneResult& self) {
        return py::str("FinetuneResult({}, {} steps)").format(status_name(self.status), self.trace.size());
      });

  py::class_<Finetuning>(m, "Finetuning", "Results of several runs, and what they cost together.")
      .def_readonly("runs", &Finetuning::runs, "One :class:`FinetuneResult` per run.")
      .def_readonly("cost", &Finetuning::cost, "Of all runs together.");

  m.def("finetune", &run_finetune, py::arg("model"), py::arg("runs"), py::kw_only(), py::arg("progress") = py::none(),
        py::arg("checkpoint") = py::none(), py::arg("resume") = false, py::arg("micro_batch_tokens") = 1024,
        py::arg("template_hash") = "", "Train runs of options and data; use :func:`titer.training.finetune`.");

  m.def(
      "merge",
      [](const CausalLM& base, const LoraAdapter& adapter) {
        const py::gil_scoped_release release;
        return std::const_pointer_cast<CausalLM>(merge(base, adapter));
      },
      py::arg("base"), py::arg("adapter"), "The base with an adapter in it; use :func:`titer.training.merge`.");
}

}  // namespace titer::python
