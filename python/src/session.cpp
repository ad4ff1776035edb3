#include <pybind11/stl.h>
#include <titer/attacks/prompt/gcg.h>
#include <titer/core/candidate_scorer.h>
#include <titer/core/reference_scorer.h>
#include <titer/core/session.h>
#include <torch/csrc/utils/pybind.h>

#include "bindings.h"
#include "options.h"
#include "token_ids.h"

namespace titer::python {
namespace {

/// Read as GCG reads its options of these names, so that there is one table of losses and ranges.
TargetObjective objective(const std::string& loss, double mellowmax_alpha, double cw_margin) {
  GcgOptions options;
  const std::vector<OptionAssignment> given{
      {"loss", loss}, {"mellowmax_alpha", mellowmax_alpha}, {"cw_margin", cw_margin}};
  set_options(options, given, "session");
  return {options.loss, options.mellowmax_alpha, options.cw_margin};
}

/// The binding of one of the two gradients.
auto gradient(at::Tensor (Session::*of_slot)(const at::Tensor&, const TargetObjective&)) {
  return [of_slot](Session& self, const TokenIds& slot_ids, const std::string& loss, double alpha, double margin) {
    const TargetObjective wanted = objective(loss, alpha, margin);
    const py::gil_scoped_release no_gil;
    return (self.*of_slot)(slot_ids.tensor, wanted);
  };
}

template <typename Scorer>
std::unique_ptr<Scorer> open_scorer(std::shared_ptr<CausalLM> model, const Prompt& prompt,
                                    std::optional<int64_t> batch_size) {
  const py::gil_scoped_release release;
  auto session = std::make_unique<Scorer>(std::move(model), prompt, SessionOptions{.batch_size = batch_size});
  session->set_poll(check_signals);
  return session;
}

}  // namespace

void register_session(py::module_& m) {
  const py::call_guard<py::gil_scoped_release> release;
  py::class_<Cost>(m, "Cost", "What has been spent.")
      .def_readonly("queries", &Cost::queries, "Candidates scored or texts generated.")
      .def_readonly("tokens", &Cost::tokens, "Nominal tokens of those: whole sequences, whatever was reused.")
      .def_readonly("flops", &Cost::flops, "Executed floating-point operations, 2 per multiply-add.")
      .def_readonly("seconds", &Cost::seconds, "Wall time, seconds.")
      .def_readonly("peak_bytes", &Cost::peak_bytes,
                    "Largest memory beyond what was held when the session opened, bytes.")
      .def("__repr__", [](const Cost& self) {
        return py::str("Cost(queries={}, tokens={}, flops={:.4g}, seconds={:.3f}, peak_bytes={})")
            .format(self.queries, self.tokens, self.flops, self.seconds, self.peak_bytes);
      });

  py::class_<Session> session(m, "Session", R"doc(
One prompt opened on one system. Belongs to one thread at a time.

Examples
--------
>>> session = titer.System(model).open(prompt)
>>> gradient = session.token_gradient(prompt.slot_ids)
>>> session.losses([prompt.slot_ids, prompt.slot_ids]).shape
torch.Size([2])
)doc");
  {
    py::options signatures;
    signatures.disable_function_signatures();
    session.def(
        "generate",
        [](Session& self, const std::string& slot_text, const py::kwargs& options) {
          const auto parsed = from_keywords<GenerateOptions>(options, "generate");
          const py::gil_scoped_release no_gil;
          return self.generate(slot_text, parsed);
        },
        function_doc("generate(self, slot_text: str", describe_options(GenerateOptions{}), "Generation",
                     "The system's answer when the slot holds this text, rendered and tokenized anew.")
            .c_str());
  }
  session
      .def(
          "rebase", [](Session& self, const TokenIds& slot_ids) { self.rebase(slot_ids.tensor); }, py::arg("slot_ids"),
          release, "Make `slot_ids`, `[S]` int64 or a list of int, the text that candidates are variants of.")
      .def(
          "losses", [](Session& self, const TokenIds& candidates) { return self.losses(candidates.tensor); },
          py::arg("candidates"), release, R"doc(
Losses of variants of the slot.

Parameters
----------
candidates : Tensor or list of lists
    `[B, S]` int64 token ids; row b replaces the slot.

Returns
-------
Tensor
    `[B]` float32, mean negative log-likelihood of the target tokens, nats.

Raises
------
ValueError
    If S differs from the opened slot.
IndexError
    If an id is outside the vocabulary.
)doc")
      .def(
          "score",
          [](Session& self, const TokenIds& candidates, const std::string& loss, double alpha, double margin) {
            const TargetObjective wanted = objective(loss, alpha, margin);
            const py::gil_scoped_release no_gil;
            const CandidateScores scores = self.score(candidates.tensor, wanted);
            return std::make_pair(scores.loss, scores.match);
          },
          py::arg("candidates"), py::arg("loss") = "cross_entropy", py::arg("mellowmax_alpha") = 1.0,
          py::arg("cw_margin") = 1e-3,
          "Losses `[B]` float32 in the unit of `loss`, and `[B]` bool: every target token is the model's first choice.")
      .def("token_gradient", gradient(&Session::token_gradient), py::arg("slot_ids"), py::arg("loss") = "cross_entropy",
           py::arg("mellowmax_alpha") = 1.0, py::arg("cw_margin") = 1e-3,
           "Gradient `[S, V]` float32 of the loss with respect to a one-hot encoding of the slot `[S]`; rebases to it.")
      .def("embedding_gradient", gradient(&Session::embedding_gradient), py::arg("slot_ids"),
           py::arg("loss") = "cross_entropy", py::arg("mellowmax_alpha") = 1.0, py::arg("cw_margin") = 1e-3,
           "Gradient `[S, d]` float32 of the loss with respect to the embedding rows of the slot `[S]`; rebases to it.")
      .def("promising_tokens", &Session::promising_tokens, py::arg("gradient"), py::arg("allowed"), py::arg("k"),
           release, R"doc(
The allowed tokens of lowest token gradient at every position, without forming that gradient.

Parameters
----------
gradient : Tensor
    `[S, d]` of floating point, any mix of embedding gradients; rounded to the model's dtype.
allowed : Tensor
    `[A]` bool; ids from A on are not allowed.
k : int

Returns
-------
Tensor
    `[S, m]` int64, best first, of equal ones the lowest id; m is the smaller of k and the number of allowed tokens.

Raises
------
ValueError
    If a shape does not fit, k is below 1, or the gradient of an allowed token is not finite.
TypeError
    If a dtype does not fit.
)doc")
      .def_property_readonly("prompt", &Session::prompt, "The opened prompt.")
      .def_property_readonly(
          "cost", [](const Session& self) { return self.cost(); }, "What this session has spent.");

  py::class_<CandidateScorer, Session>(
      m, "CandidateScorer",
      "The session of a bare model: exact scores of many slot variants at the cost of what they change.")
      .def(py::init(&open_scorer<CandidateScorer>), py::arg("model"), py::arg("prompt"), py::kw_only(),
           py::arg("batch_size") = py::none());
  py::class_<ReferenceScorer, Session>(m, "ReferenceScorer",
                                       "The plain oracle of CandidateScorer: whole sequences, full logits. Slow.")
      .def(py::init(&open_scorer<ReferenceScorer>), py::arg("model"), py::arg("prompt"), py::kw_only(),
           py::arg("batch_size") = py::none());

  py::class_<System>(m, "System", "Anything that answers a prompt; ``System(model)`` is a bare model.")
      .def(py::init([](std::shared_ptr<CausalLM> model) -> std::unique_ptr<System> {
             return std::make_unique<ModelSystem>(std::move(model));
           }),
           py::arg("model"))
      .def(
          "open",
          [](const System& self, const Prompt& prompt, std::optional<int64_t> batch_size,
             const std::optional<Shard>& shard) {
            const py::gil_scoped_release no_gil;
            std::unique_ptr<Session> session =
                self.open(prompt, {.batch_size = batch_size, .shard = shard.value_or(Shard{})});
            session->set_poll(check_signals);
            return session;
          },
          py::arg("prompt"), py::kw_only(), py::arg("batch_size") = py::none(), py::arg("shard") = py::none(),
          "Open a session; `batch_size` caps the candidates computed at a time, and with `shard`, a :class:`Shard`, "
          "ranks that open the same prompt and make the same calls share the work.")
      .def_property_readonly("fingerprint", &System::fingerprint,
                             "A text that changes when the system answers differently; checkpoints hold it.");
}

}  // namespace titer::python
