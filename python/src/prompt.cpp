#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <titer/core/prompt.h>

#include "bindings.h"
#include "token_ids.h"

namespace titer::python {
namespace {

/// `owner` has a `tokenizer` and, for chats, a `chat_template` with `renderer(messages, slot)` and `hash`.
Prompt prompt_from_chat(const py::object& owner, const py::object& messages, const std::string& target,
                        const std::string& slot, const std::string& initial) {
  const py::object chat = owner.attr("chat_template");
  if (chat.is_none())
    throw py::value_error("[prompt] the model has no chat template; use Prompt.from_text, or give load_model one");
  const auto render = py::cast<std::function<std::string(const std::string&)>>(chat.attr("renderer")(messages, slot));
  return Prompt::from_render(
      py::cast<const Tokenizer&>(owner.attr("tokenizer")),
      [render](std::string_view text) { return render(std::string(text)); }, target, initial,
      py::cast<std::string>(chat.attr("hash")));
}

at::Tensor valid_rows(const Prompt& prompt, const at::Tensor& candidates) {
  TORCH_CHECK_TYPE(candidates.scalar_type() == at::kLong, "[prompt] token ids must be int64, got ",
                   candidates.scalar_type());
  TORCH_CHECK_VALUE(candidates.dim() == 2, "[prompt] candidates must have shape [B, S], got ", candidates.sizes());
  const at::Tensor ids = candidates.to(at::kCPU).contiguous();
  const auto length = static_cast<size_t>(ids.size(1));
  at::Tensor out = at::empty({ids.size(0)}, at::kBool);
  for (int64_t b = 0; b < ids.size(0); ++b)
    out.mutable_data_ptr<bool>()[b] = prompt.valid({ids.const_data_ptr<int64_t>() + b * ids.size(1), length});
  return out;
}

}  // namespace

void register_prompt(py::module_& m) {
  py::class_<Prompt>(m, "Prompt", R"doc(
A prompt with one slot that an attacker writes, cut into the token spans before, slot, after and target.

The spans are cut from the tokenized whole, so that they are what the model reads.

Examples
--------
>>> prompt = titer.Prompt.from_chat(model, "Tell me about Saturn. {slot}", target="NO WAY")
>>> len(prompt.slot_ids) > 0
True
)doc")
      .def_static("from_chat", &prompt_from_chat, py::arg("model"), py::arg("messages"), py::arg("target"),
                  py::arg("slot") = "{slot}", py::arg("initial") = std::string(kDefaultSlotText), R"doc(
Render messages with the model's chat template.

Parameters
----------
model : Model
    Supplies tokenizer and chat template.
messages : str or list of dict
    A user message, or messages with ``role`` and ``content``; one content holds `slot` exactly once.
target : str
    What the model should answer.
slot : str
    Marks the place that the attacker writes.
initial : str
    Text that stands in the slot at first; its number of tokens is the length of the slot.

Raises
------
ValueError
    If the slot is missing or repeated, the target is empty, or a border between the spans falls inside a token.
)doc")
      .def_static(
          "from_text",
          [](const py::object& model, const std::string& text, const std::string& target, const std::string& slot,
             const std::string& initial) {
            const py::object tokenizer = py::isinstance<Tokenizer>(model) ? model : py::object(model.attr("tokenizer"));
            return Prompt::from_text(py::cast<const Tokenizer&>(tokenizer), text, target, slot, initial);
          },
          py::arg("model"), py::arg("text"), py::arg("target"), py::arg("slot") = "{slot}",
          py::arg("initial") = std::string(kDefaultSlotText), R"doc(
Take a plain text without a chat template. Tokens that the tokenizer puts before every text are kept.

Parameters
----------
model : Model or Tokenizer
    Supplies the tokenizer.
text : str
    Holds `slot` exactly once.
target, slot, initial
    As in :meth:`from_chat`.
)doc")
      .def("with_slot", &Prompt::with_slot, py::arg("initial"), "The same prompt with another text in the slot.")
      .def(
          "valid", [](const Prompt& self, const std::vector<int64_t>& ids) { return self.valid(ids); },
          py::arg("slot_ids"),
          "Whether these ids come back from the text they spell, rendered and tokenized in context.")
      .def(
          "valid", [](const Prompt& self, const TokenIds& candidates) { return valid_rows(self, candidates.tensor); },
          py::arg("candidates"), py::call_guard<py::gil_scoped_release>(),
          "The same of every row of `[B, S]` int64 ids: `[B]` bool.")
      .def(
          "slot_text", [](const Prompt& self, const std::vector<int64_t>& ids) { return self.slot_text(ids); },
          py::arg("slot_ids"), "Text that an attacker writes for these ids.")
      .def(
          "encode", [](const Prompt& self, const std::string& text) { return self.encode(text); }, py::arg("slot_text"),
          "The model's input for a slot text, up to where the model answers.")
      .def(
          "answer_text",
          [](const Prompt& self, const std::string& slot_text, const std::vector<int64_t>& ids) {
            return self.answer_text(slot_text, ids);
          },
          py::arg("slot_text"), py::arg("ids"),
          "The text that these ids say as an answer to the prompt with this slot text: what is compared with the "
          "target. "
          "Special tokens are left out unless the target holds some.")
      .def("__len__", &Prompt::length)
      .def_property_readonly("before_ids", &Prompt::before_ids, "Ids before the slot.")
      .def_property_readonly("slot_ids", &Prompt::slot_ids, "Ids of the initial slot text.")
      .def_property_readonly("after_ids", &Prompt::after_ids, "Ids between slot and answer.")
      .def_property_readonly("target_ids", &Prompt::target_ids, "Ids of the target.")
      .def_property_readonly("target", &Prompt::target_text, "The target text.")
      .def_property_readonly("template_hash", &Prompt::template_hash,
                             "SHA-256 of the chat template; empty for plain text.")
      .def_property_readonly("tokenizer", &Prompt::tokenizer, "The tokenizer.");
}

}  // namespace titer::python
