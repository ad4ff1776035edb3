#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <pybind11/typing.h>
#include <titer/core/dataset.h>

#include "bindings.h"

namespace titer::python {
namespace {

using Messages = py::typing::List<py::typing::Dict<py::str, py::str>>;

Messages messages_of(const Record& record) {
  Messages messages;
  for (const Message& message : record.messages) {
    py::dict entry;
    entry["role"] = role_name(message.role);
    entry["content"] = message.content;
    messages.append(entry);
  }
  return messages;
}

Record read(const Dataset& self, std::size_t index) {
  const py::gil_scoped_release release;
  return self.record(index);
}

void register_record(py::module_& m) {
  py::class_<Record>(m, "Record", "One record of a `Dataset`.")
      .def_readonly("id", &Record::id, "Name that no other record of the file has, or None.")
      .def_property_readonly("messages", &messages_of,
                             "What `Prompt.from_chat` takes, ending with the answer: dictionaries of `role` and "
                             "`content`. `prompt` and `response` of a file are one user and one assistant message.")
      .def_readonly("from_prompt", &Record::from_prompt,
                    "Whether the file has `prompt` and `response`, which without a chat template are plain text.")
      .def_readonly("task", &Record::task, "Name of the task that the record belongs to, or None.")
      .def_property_readonly(
          "metadata",
          [](const Record& self) -> py::typing::Dict<py::str, py::object> {
            return py::module_::import("json").attr("loads")(self.metadata);
          },
          "Dictionary, empty if the file has none.")
      .def_property_readonly(
          "hash", [](const Record& self) { return self.hash.hex(); }, "SHA-256 of the canonical JSON, hexadecimal.")
      .def("__repr__", [](const Record& self) {
        const py::object id = py::cast(self.id);
        const py::object task = py::cast(self.task);
        return py::str("Record(id={!r}, task={!r}, messages={}, hash={!r})")
            .format(id, task, self.messages.size(), self.hash.hex().substr(0, 12) + "...");
      });
}

}  // namespace

void register_dataset(py::module_& m) {
  register_record(m);
  py::class_<Dataset>(m, "Dataset", R"doc(
Training records from a JSON lines file: checked when it is opened, read one at a time, named by hashes.

Each line is one object, at most 16 MiB long, with ``messages`` (an optional system message, then user and assistant in
turn, the last one the assistant's) or with ``prompt`` and ``response``, and if wanted ``id`` (a string that no other
record has), ``task`` (a string) and ``metadata`` (an object); any other key, a blank line or an empty answer is an error
that names file, line and field.

The hash of a record is the SHA-256 of its canonical JSON, in UTF-8:
``json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)``; integers outside of 64 bits count as
floats. The Merkle root is the tree hash of RFC 6962 over these hashes `h` (32 bytes each) in the order of the file: a
leaf is ``sha256(b"\x00" + h)``, a node ``sha256(b"\x01" + left + right)``.

A data set takes 40 bytes of memory for each record and keeps its file open. A record whose content has changed since
then is refused.

Parameters
----------
path
    The file.

Raises
------
OSError
    If the file cannot be read.
ValueError
    If it is not a regular file, has no records, or one of them is not as described above.

Examples
--------
>>> record = {"id": "sum-1", "prompt": "Two plus two?", "response": " Four.", "metadata": {"difficulty": 0.5}}
>>> with open("sums.jsonl", "w") as file:
...     print(json.dumps(record), file=file)
>>> data = titer.Dataset("sums.jsonl")
>>> data
Dataset('sums.jsonl', 1 record, merkle_root='6d6673f5867d...')
>>> data[0].messages
[{'role': 'user', 'content': 'Two plus two?'}, {'role': 'assistant', 'content': ' Four.'}]
>>> data[0].metadata["difficulty"]
0.5
>>> [one.id for one in data]
['sum-1']
)doc")
      .def(py::init([](const std::filesystem::path& path) { return Dataset(path, check_signals); }), py::arg("path"),
           py::call_guard<py::gil_scoped_release>())
      .def("__len__", &Dataset::size)
      .def(
          "__getitem__",
          [](const Dataset& self, py::ssize_t index) {
            const auto size = static_cast<py::ssize_t>(self.size());
            if (index < -size || index >= size) {
              throw py::index_error("[dataset] expected an index from " + std::to_string(-size) + " to " +
                                    std::to_string(size - 1) + ", got " + std::to_string(index));
            }
            return read(self, static_cast<std::size_t>(index < 0 ? index + size : index));
          },
          py::arg("index"), "One record; negative indices count from the end.")
      .def(
          "__getitem__",
          [](const Dataset& self, const py::slice& slice) {
            py::ssize_t start = 0, stop = 0, step = 0, length = 0;
            if (!slice.compute(static_cast<py::ssize_t>(self.size()), &start, &stop, &step, &length)) {
              throw py::error_already_set();
            }
            std::vector<Record> records;
            for (; length > 0; --length, start += step) records.push_back(read(self, static_cast<std::size_t>(start)));
            return records;
          },
          py::arg("index"), "A list of records.")
      .def(
          "__iter__",
          [](const py::object& self) {
            return py::reinterpret_steal<py::typing::Iterator<Record>>(PySeqIter_New(self.ptr()));
          },
          "One record after the other, in the order of the file.")
      .def_property_readonly(
          "hashes",
          [](const Dataset& self) {
            std::vector<std::string> hashes;
            for (const Sha256Digest& hash : self.hashes()) hashes.push_back(hash.hex());
            return hashes;
          },
          "Hash of every record, hexadecimal.")
      .def_property_readonly(
          "merkle_root", [](const Dataset& self) { return self.merkle_root().hex(); },
          "Names all records and their order, hexadecimal.")
      .def_property_readonly("path", &Dataset::path, "The file, as it was given.")
      .def("__repr__", [](const Dataset& self) {
        return py::str("Dataset({!r}, {} record{}, merkle_root={!r})")
            .format(py::str(py::cast(self.path())), self.size(), self.size() == 1 ? "" : "s",
                    self.merkle_root().hex().substr(0, 12) + "...");
      });
}

}  // namespace titer::python
