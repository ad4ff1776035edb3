#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <titer/core/tokenizer.h>

#include "bindings.h"

namespace titer::python {

void register_tokenizer(py::module_& m) {
  const py::call_guard<py::gil_scoped_release> release;
  py::class_<Tokenizer>(m, "Tokenizer", R"doc(
BPE tokenizer of a Hugging Face ``tokenizer.json``.

Gives the ids and the text that the ``tokenizers`` package gives, or refuses to load.

Examples
--------
>>> tokenizer = titer.Tokenizer.from_file(model_folder / "tokenizer.json")
>>> tokenizer.decode(tokenizer.encode("Hello, world"))
'Hello, world'
)doc")
      .def_static("from_file", &Tokenizer::from_file, py::arg("path"), release, R"doc(
Read a ``tokenizer.json``.

Raises
------
OSError
    If the file cannot be read.
ValueError
    If the file is malformed or needs a feature that is not supported; the message names the key.
)doc")
      .def_static("from_json", &Tokenizer::from_json, py::arg("text"), py::arg("origin") = "tokenizer.json", release,
                  "The same from memory; `origin` names the text in error messages.")
      .def(
          "encode",
          [](const Tokenizer& self, const std::string& text, bool special) { return self.encode(text, special); },
          py::arg("text"), py::arg("add_special_tokens") = true, release, "Token ids of a text.")
      .def(
          "encode_batch",
          [](const Tokenizer& self, const std::vector<std::string>& texts, bool special) {
            std::vector<std::vector<int64_t>> out;
            out.reserve(texts.size());
            for (const std::string& text : texts) out.push_back(self.encode(text, special));
            return out;
          },
          py::arg("texts"), py::arg("add_special_tokens") = true, release, "Token ids of each text.")
      .def(
          "encode_with_offsets",
          [](const Tokenizer& self, const std::string& text, bool special) {
            const Encoding encoding = self.encode_with_offsets(text, special);
            std::vector<std::pair<int64_t, int64_t>> offsets;
            for (const ByteRange& range : encoding.offsets) offsets.emplace_back(range.begin, range.end);
            return std::make_pair(encoding.ids, offsets);
          },
          py::arg("text"), py::arg("add_special_tokens") = true, release,
          "Token ids of a text, and the range of its UTF-8 bytes that each covers.")
      .def(
          "decode",
          [](const Tokenizer& self, const std::vector<int64_t>& ids, bool skip) { return self.decode(ids, skip); },
          py::arg("ids"), py::arg("skip_special_tokens") = false, release,
          "Text of token ids; invalid UTF-8 becomes U+FFFD.")
      .def(
          "bytes_of",
          [](const Tokenizer& self, const std::vector<int64_t>& ids) { return py::bytes(self.bytes_of(ids)); },
          py::arg("ids"),
          "Bytes of the text that token ids stand for inside a longer one; unlike `decode`, nothing is stripped.")
      .def(
          "text_after",
          [](const Tokenizer& self, const std::string& before, const std::vector<int64_t>& ids, bool skip) {
            return self.text_after(before, ids, skip);
          },
          py::arg("before"), py::arg("ids"), py::arg("skip_special_tokens") = false, release,
          "Text that token ids add behind another one; a leading space goes only where the tokenizer would add it.")
      .def("token_to_id", &Tokenizer::token_to_id, py::arg("token"), "Id of a token as spelled in the file, or None.")
      .def("id_to_token", &Tokenizer::id_to_token, py::arg("id"), "Token of an id as spelled in the file.")
      .def("is_added_token", &Tokenizer::is_added_token, py::arg("id"), "Whether the id is an added token.")
      .def("is_special_token", &Tokenizer::is_special_token, py::arg("id"), "Whether the id is a special token.")
      .def_property_readonly("vocab_size", &Tokenizer::vocab_size, "Largest id plus one, added tokens included.");
}

}  // namespace titer::python
