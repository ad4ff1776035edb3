#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <titer/attacks/prompt/gcg.h>
#include <titer/core/atomic_file.h>

#include "bindings.h"
#include "options.h"

namespace titer::python {
namespace {

constexpr size_t kMaxResultBytes = size_t{1} << 30;

/// A DataFrame with one row per step.
py::object trace_frame(const AttackResult& result) {
  py::dict columns;
  const auto column = [&](const char* name, auto field) {
    py::list values;
    for (const AttackStep& step : result.trace) values.append(field(step));
    columns[name] = values;
  };
  column("step", [](const AttackStep& s) { return s.step; });
  column("loss", [](const AttackStep& s) { return s.loss; });
  column("best_loss", [](const AttackStep& s) { return s.best_loss; });
  column("width", [](const AttackStep& s) { return s.width; });
  column("draws", [](const AttackStep& s) { return s.draws; });
  column("ids", [](const AttackStep& s) { return s.ids; });
  column("queries", [](const AttackStep& s) { return s.cost.queries; });
  column("tokens", [](const AttackStep& s) { return s.cost.tokens; });
  column("flops", [](const AttackStep& s) { return s.cost.flops; });
  column("seconds", [](const AttackStep& s) { return s.cost.seconds; });
  column("peak_bytes", [](const AttackStep& s) { return s.cost.peak_bytes; });
  return py::module_::import("pandas").attr("DataFrame")(columns);
}

AttackResult run_attack(const PromptAttack& attack, const System& system, const Prompt& prompt,
                        const py::object& progress, const std::optional<std::filesystem::path>& checkpoint, bool resume,
                        const std::optional<std::filesystem::path>& log, const std::optional<Shard>& shard) {
  AttackRun run;
  run.poll = check_signals;
  if (checkpoint) run.checkpoint = *checkpoint;
  run.resume = resume;
  if (!progress.is_none()) {
    run.progress = [&progress](const AttackStep& step) {
      const py::gil_scoped_acquire gil;
      const py::object answer = progress(step);
      return answer.is_none() || py::cast<bool>(answer);
    };
  }
  const py::gil_scoped_release release;
  if (shard) run.shard = *shard;
  std::optional<RunLog> run_log;
  on_rank_0(run.shard, [&] {
    if (log) run.log = &run_log.emplace(*log);
  });
  return attack.run(system, prompt, run);
}

template <typename Attack, typename Options>
void register_attack(py::module_& m, const char* name, const char* where, const std::string& doc) {
  py::class_<Attack, PromptAttack> attack(m, name, doc.c_str());
  register_configured<Options>(
      attack, name, where, [](const Options& options) { return Attack(options); },
      [](const Attack& self) { return self.options(); });
}

}  // namespace

void register_attacks(py::module_& m) {
  py::class_<AttackStep>(m, "AttackStep", "One step of a search, as progress callbacks see it.")
      .def_readonly("step", &AttackStep::step, "Steps done.")
      .def_readonly("loss", &AttackStep::loss, "Loss that the step ends with.")
      .def_readonly("best_loss", &AttackStep::best_loss, "Lowest loss so far.")
      .def_readonly("width", &AttackStep::width, "Distinct valid candidates scored.")
      .def_readonly("draws", &AttackStep::draws, "Candidates drawn to find them.")
      .def_readonly("ids", &AttackStep::ids, "Token ids of the slot that the step ends with.")
      .def_readonly("cost", &AttackStep::cost, "What the run has spent so far.");

  py::class_<AttackResult>(m, "AttackResult", R"doc(
What a prompt attack found.

Examples
--------
>>> attack = titer.attacks.GCG(num_steps=2, search_width=8, seed=0)
>>> result = attack.run(titer.System(model), prompt)
>>> list(result.trace.columns[:2])
['step', 'loss']
)doc")
      .def_readonly("attack", &AttackResult::attack, "Name of the attack.")
      .def_readonly("options_json", &AttackResult::options, "All options as a JSON object.")
      .def_readonly("target", &AttackResult::target, "What the model should answer.")
      .def_readonly("text", &AttackResult::text, "What the attacker writes into the slot.")
      .def_readonly("ids", &AttackResult::ids, "Token ids of the slot in the prompt.")
      .def_readonly("initial_loss", &AttackResult::initial_loss, "Loss of the slot that the search started from.")
      .def_readonly("loss", &AttackResult::loss, "Loss of the final prompt, scored again at the end.")
      .def_readonly("success", &AttackResult::success, "Greedy decoding of the final prompt starts with the target.")
      .def_readonly("initial_completion", &AttackResult::initial_completion,
                    "The model's own answer before the attack.")
      .def_readonly("completion", &AttackResult::completion, "The model's answer to the final prompt.")
      .def_readonly("stop_reason", &AttackResult::stop_reason, "``num_steps``, ``early_stop`` or ``callback``.")
      .def_readonly("template_hash", &AttackResult::template_hash, "SHA-256 of the chat template.")
      .def_readonly("cost", &AttackResult::cost, "What the whole run has spent.")
      .def_readonly("steps", &AttackResult::trace, "One :class:`AttackStep` per step.")
      .def_property_readonly("trace", &trace_frame, "One row per step, a ``pandas.DataFrame``.")
      .def(
          "plot",
          [](const py::object& self, const py::object& axes) {
            return py::module_::import("titer.plotting").attr("plot_attack")(self, axes);
          },
          py::arg("ax") = py::none(), "Loss against step on matplotlib axes.")
      .def(
          "to_json", [](const AttackResult& self) { return to_json(self); }, "The result as a JSON object.")
      .def(
          "save",
          [](const AttackResult& self, const std::filesystem::path& path) {
            write_file_atomically(path, to_json(self) + "\n");
          },
          py::arg("path"), "Write the result as JSON; the file is complete or absent.")
      .def_static(
          "load",
          [](const std::filesystem::path& path) {
            return parse_attack_result(read_file(path, kMaxResultBytes), path.string());
          },
          py::arg("path"), "Read what :meth:`save` wrote.")
      .def("__repr__", [](const AttackResult& self) {
        return py::str("AttackResult(attack={!r}, text={!r}, loss={:.4f}, success={})")
            .format(self.attack, self.text, self.loss, self.success);
      });

  py::class_<PromptAttack>(m, "PromptAttack", "An attack that searches a prompt's slot.")
      .def("run", &run_attack, py::arg("system"), py::arg("prompt"), py::kw_only(), py::arg("progress") = py::none(),
           py::arg("checkpoint") = py::none(), py::arg("resume") = false, py::arg("log") = py::none(),
           py::arg("shard") = py::none(), R"doc(
Run the attack.

Parameters
----------
system : System
    What is attacked.
prompt : Prompt
    Where the attacker writes, and the target.
progress : callable, optional
    Called with an :class:`AttackStep` after every step; returning False ends the search.
checkpoint : path, optional
    State of the search, written during the run and when it is interrupted.
resume : bool
    Continue from `checkpoint` where that exists.
log : path, optional
    Append-only JSON lines: start, every step, result.
shard : Shard, optional
    Ranks that share the scoring. Each runs the same attack on the same model and prompt, and gets the same result;
    callbacks and files are those of rank 0.

Returns
-------
AttackResult
)doc");

  register_attack<Gcg, GcgOptions>(m, "GCG", "gcg", R"doc(
Greedy Coordinate Gradient (arXiv 2307.15043) on one prompt, with the options of nanoGCG.

Examples
--------
>>> titer.attacks.GCG(num_steps=10, seed=1)
GCG(num_steps=10, seed=1)
)doc");
}

}  // namespace titer::python
