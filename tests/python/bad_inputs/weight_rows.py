"""Weights in safetensors: damaged files, headers that lie, other formats under their name, shards that lead astray."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bad_inputs.row import Row, edit, edit_header, edit_weights, pickled, remove, with_header, write, zipped

_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_FIRST, _SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_Q = "model.layers.0.self_attn.q_proj.weight"
_DOWN = "model.layers.1.mlp.down_proj.weight"
_NORM = "model.norm.weight"


def shard(folder: Path) -> Path:
    """Split the weights of a folder in two files."""
    weights = load_file(folder / _FILE)
    (folder / _FILE).unlink()
    names = sorted(weights)
    parts = {_FIRST: names[::2], _SECOND: names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def _content(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / _FILE
        file.write_bytes(change(file.read_bytes()))

    return damage


def _length(length: int) -> Callable[[Path], None]:
    return _content(lambda content: struct.pack("<Q", length) + content[8:])


def _entry(**changes: Any) -> Callable[[Path], None]:
    def change(header: dict[str, Any]) -> None:
        header[_Q] |= changes
        for key, value in changes.items():
            if value is ...:
                del header[_Q][key]

    return edit_header(change)


def _overlap(header: dict[str, Any]) -> None:
    names = [name for name in header if name != "__metadata__"]
    first, second = sorted(names, key=lambda name: header[name]["data_offsets"])[:2]
    header[second] = dict(header[first])


def _reverse(header: dict[str, Any]) -> None:
    header[_Q]["data_offsets"].reverse()


def _point_outside(header: dict[str, Any]) -> None:
    begin, end = header[_Q]["data_offsets"]
    header[_Q]["data_offsets"] = [begin + 2**40, end + 2**40]


def _many_tensors(folder: Path) -> None:
    entry = {"dtype": "U8", "shape": [], "data_offsets": [0, 0]}
    header = json.dumps({f"{index:x}": entry for index in range(200_000)}, separators=(",", ":"))
    (folder / _FILE).write_bytes(with_header(header.replace('"shape":[]', '"shape":[0]').encode()))


_HEADERS: list[tuple[str, Callable[[Path], None], str]] = [
    ("shorter than a length", write(_FILE, b"1234567"), "expected at least 8 bytes, the file has 7"),
    ("empty", write(_FILE, b""), "file is empty"),
    *[(f"cut to {kept} bytes", _content(lambda content, kept=kept: content[:kept]), "truncated")
      for kept in (4, 8, 100, 2000, -5000, -1)],
    ("longer than its tensors", _content(lambda content: content + b"\0" * 8), "8 bytes follow the last tensor"),
    *[(f"a header of {length} bytes", _length(length), r"\[safetensors\] header says|\[json\]|must start with")
      for length in (0, 1, 2**32, 2**60, 2**63, 2**64 - 1)],
    ("a header over the limit", write(_FILE, with_header(b"{" + b" " * 100_000_000)), "the limit is 100000000"),
    ("a header that starts with a space", write(_FILE, with_header(b" {}")), "must start with '{'"),
    ("a header that is a list", write(_FILE, with_header(b"[]")), "must start with '{'"),
    ("a header with a name twice", write(_FILE, with_header(b'{"a": {}, "a": {}}')), "duplicate key 'a'"),
    ("a header that is nested", write(_FILE, with_header(b'{"a":' * 100_000)), "nested deeper than 4"),
    ("a header with NUL", write(_FILE, with_header(b'{"a\0": {}}')), "NUL byte"),
    ("a header with a lone surrogate", write(_FILE, with_header(b'{"\\ud800": {}}')), "surrogate"),
    ("a name with a line break", write(_FILE, with_header(b'{"a\\n\\u001b[31m": {}}')), r"tensor 'a\\x0a\\x1b\[31m'"),
    ("a name of 10 MB", write(_FILE, with_header(b'{"%s": {}}' % (b"n" * 10_000_000))), r"tensor 'n+\.\.\.'"),
    ("metadata that is no text", write(_FILE, with_header(b'{"__metadata__": {"a": 1}}')), "__metadata__ 'a' must be"),
    ("200,000 empty tensors", _many_tensors, "'model.embed_tokens.weight' is missing"),
    ("overlapping tensors", edit_header(_overlap), "tensors overlap"),
    ("offsets in reverse", edit_header(_reverse), f"'{_Q}': data_offsets must be two non-negative integers"),
    ("offsets outside", edit_header(_point_outside), "data begins at .* there is a hole before it"),
    ("offsets below 0", _entry(data_offsets=[-4096, 0]), f"'{_Q}': data_offsets must be"),
    ("offsets near 2^63", _entry(data_offsets=[2**63 - 4096, 2**63]), f"'{_Q}': data_offsets must be"),
    ("three offsets", _entry(data_offsets=[0, 0, 0]), f"'{_Q}': data_offsets must be two integers"),
    ("offsets that are -0.0 and 1e400", _entry(data_offsets=[-0.0, 4096]), f"'{_Q}': data_offsets must be"),
    ("a shape that overflows", _entry(shape=[2**32, 2**32]), f"'{_Q}': dtype x shape exceeds 2\\^63"),
    ("a shape that overflows to 0", _entry(shape=[2**62, 4, 0]), f"'{_Q}': dtype x shape exceeds 2\\^63"),
    ("a shape below 0", _entry(shape=[-1, 32]), f"'{_Q}': shape must be a list of non-negative"),
    ("a shape of another size", _entry(shape=[31, 32]), f"'{_Q}': dtype x shape is 3968 bytes"),
    ("a shape of a million dimensions", _entry(shape=[1] * 1_000_000), f"'{_Q}'.* shape"),
    ("a shape that is nested", _entry(shape=[[32], [32]]), f"'{_Q}': shape must be|nested deeper"),
    ("a dtype of tomorrow", _entry(dtype="F128"), f"'{_Q}': dtype 'F128' is not supported"),
    ("a dtype of 10 MB", _entry(dtype="F" * 10_000_000), rf"'{_Q}': dtype 'F+\.\.\.' is not supported"),
    ("a dtype that is a number", _entry(dtype=32), f"'{_Q}': dtype must be a text"),
    ("no dtype", _entry(dtype=...), f"'{_Q}': expected an object with exactly dtype"),
    ("code beside the dtype", _entry(code="import os"), f"'{_Q}': expected an object with exactly dtype"),
]  # fmt: skip

_WEIGHTS: list[tuple[str, Callable[[dict[str, torch.Tensor]], object], str]] = [
    ("a weight missing", lambda weights: weights.pop(_Q), f"'{_Q}' is missing"),
    ("all weights missing", lambda weights: weights.clear(), r"'model\.embed_tokens\.weight' is missing"),
    ("a weight transposed", lambda weights: weights.update({_DOWN: weights[_DOWN].t().contiguous()}),
     rf"'{_DOWN}' must have shape \[32, 64\], got \[64, 32\]"),
    ("a weight of no dimension", lambda weights: weights.update({_NORM: torch.tensor(1.0)}),
     f"'{_NORM}' must have shape"),
    ("an empty weight", lambda weights: weights.update({_NORM: torch.empty(0)}), f"'{_NORM}' must have shape"),
    ("integers", lambda weights: weights.update({_Q: weights[_Q].to(torch.int8)}),
     f"'{_Q}' has dtype I8, expected F16"),
    ("truth values", lambda weights: weights.update({_Q: weights[_Q] > 0}), f"'{_Q}' has dtype BOOL, expected F16"),
    ("8-bit floats", lambda weights: weights.update({_Q: weights[_Q].to(torch.float8_e4m3fn)}),
     f"'{_Q}' has dtype F8_E4M3"),
    ("two dtypes", lambda weights: weights.update({_Q: weights[_Q].to(torch.float16)}), f"'{_Q}' is Half"),
]  # fmt: skip

# Files of other formats, by their first bytes. The ones that could hold code are whole and would write the canary.
_OTHERS: list[tuple[str, Callable[[Path], bytes], str]] = [
    ("a zip archive of torch.save", zipped, "looks like a zip archive"),
    *[(f"a pickle of protocol {protocol}", lambda folder, protocol=protocol: pickled(folder, protocol), "a pickle")
      for protocol in (2, 3, 4, 5)],
    ("a pickle of protocol 0", lambda folder: pickled(folder, 0), "truncated or not safetensors"),
    ("a GGUF file", lambda folder: b"GGUF\3\0\0\0" + bytes(100), "looks like a GGUF file"),
    ("a gzip archive", lambda folder: gzip.compress(bytes(1000)), "looks like a gzip archive"),
    ("a Zstandard archive", lambda folder: b"\x28\xb5\x2f\xfd" + bytes(range(60)), "looks like a Zstandard archive"),
    ("an HDF5 file", lambda folder: b"\x89HDF\r\n\x1a\n" + bytes(100), "looks like an HDF5 file"),
    ("a NumPy array", lambda folder: b"\x93NUMPY\1\0v\0" + bytes(100), "looks like a NumPy array"),
    ("a program", lambda folder: b"\x7fELF\2\1\1\0" + bytes(100), "looks like a program"),
    ("a web page", lambda folder: b"<!doctype html><html></html>", "looks like a web page"),
    ("a Git LFS pointer", lambda folder: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
     "looks like a Git LFS pointer"),
    ("JSON", lambda folder: b'{"weight_map": {}}', "looks like JSON"),
]  # fmt: skip


def _renamed(make: Callable[[Path], bytes]) -> Callable[[Path], None]:
    return lambda folder: write(_FILE, make(folder))(folder)


def _pickle_beside(folder: Path) -> None:
    remove(_FILE)(folder)
    (folder / "pytorch_model.bin").write_bytes(zipped(folder))


def _mapped(name: Any) -> Callable[[Path], None]:
    """Let the index name another file for a tensor."""

    def damage(folder: Path) -> None:
        index = json.loads((folder / _INDEX).read_text())
        index["weight_map"][_NORM] = name
        (folder / _INDEX).write_text(json.dumps(index))

    return damage


def _other_shard(folder: Path) -> None:
    index = json.loads((folder / _INDEX).read_text())
    stored = index["weight_map"][_NORM]
    _mapped(_FIRST if stored == _SECOND else _SECOND)(folder)


def _shard_outside(folder: Path) -> None:
    (folder / _SECOND).rename(folder.parent / "outside.safetensors")
    (folder / _SECOND).symlink_to("../outside.safetensors")


def _shard_through_folder(folder: Path) -> None:
    """A link whose own target looks harmless: the folder it goes through is the one that leaves."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / _SECOND).rename(outside / _SECOND)
    (folder / "inner").symlink_to(outside)
    (folder / _SECOND).symlink_to(f"inner/{_SECOND}")


def _many_shards(folder: Path) -> None:
    weight_map = {f"t{index}": f"model-{index:06}.safetensors" for index in range(100_000)}
    write(_INDEX, json.dumps({"weight_map": weight_map}))(folder)


def _many_links(folder: Path) -> None:
    """A thousand names of one file whose header takes long."""
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"t{index}": entry for index in range(20_000)})
    (folder / "whole").write_bytes(with_header(header.encode()))
    for index in range(1000):
        (folder / f"m{index}").symlink_to("whole")
    weight_map = {f"t{index}": f"m{index}" for index in range(1000)}
    write(_INDEX, json.dumps({"weight_map": weight_map}))(folder)


def _itself(folder: Path) -> None:
    write(_INDEX, json.dumps({"weight_map": {_NORM: _INDEX}}))(folder)


_SHARDS: list[tuple[str, Callable[[Path], object], str, type[Exception]]] = [
    *[(f"a shard called {name!r}"[:60], _mapped(name), r"plain name of a file", ValueError)
      for name in ("../outside.safetensors", "/etc/passwd", "", ".", "..", "a/b.safetensors", "a\\b", "a\0b",
                   "..\n/x", "../" * 10_000)],
    *[(f"a shard called {name!r}", _mapped(name), f"weight_map '{_NORM}' must be the name of a file", ValueError)
      for name in (3, None, [_FIRST], {})],
    ("a shard of a long name", _mapped("n" * 5000), "[Nn]ame too long", OSError),
    ("a shard of a name that is not there", _mapped("nothing"), "No such file", FileNotFoundError),
    ("a shard that is the folder", _mapped("config.json"),
     "truncated or not safetensors; it looks like JSON", ValueError),
    ("a shard missing", remove(_SECOND), "No such file", FileNotFoundError),
    ("the wrong shard for a tensor", _other_shard, f"tensor '{_NORM}' is not in the shard", ValueError),
    ("a shard that is a link outside", _shard_outside, "symbolic link that leaves the folder", ValueError),
    ("a shard behind a link outside", _shard_through_folder, "symbolic link that leaves the folder", ValueError),
    ("an index that is its own shard", _itself, "truncated or not safetensors; it looks like JSON", ValueError),
    ("100,000 shards", _many_shards, r"model-000000\.safetensors: No such file", FileNotFoundError),
    ("1000 links to one shard", _many_links, r"embed_tokens\.weight' is missing", ValueError),
    ("a tensor missing in the index", edit(_INDEX, {"weight_map": {_NORM: _FIRST}}), "is not in the shard|is missing",
     ValueError),
    ("an index of nothing", write(_INDEX, '{"weight_map": {}}'), r"embed_tokens\.weight' is missing", ValueError),
    ("an index without a map", write(_INDEX, "{}"), "expected an object 'weight_map'", ValueError),
    ("an index whose map is a list", write(_INDEX, '{"weight_map": []}'),
     "expected an object 'weight_map'", ValueError),
    ("an index that is a list", write(_INDEX, "[]"), "expected an object 'weight_map'", ValueError),
    ("an index cut short", write(_INDEX, '{"weight_map": {"a": "b"'), "unexpected end of input", ValueError),
    ("a tensor twice in the index", write(_INDEX, '{"weight_map": {"a": "x", "a": "y"}}'), "duplicate key 'a'",
     ValueError),
    ("a nested index", write(_INDEX, '{"weight_map":' * 100_000), "nested deeper than 16", ValueError),
    ("an index that is a pipe", lambda folder: (remove(_INDEX)(folder), os.mkfifo(folder / _INDEX)), "regular file",
     ValueError),
]  # fmt: skip


def rows() -> Iterator[Row]:
    for what, damage, message in _HEADERS:
        file = "model" if "is missing" in message else _FILE
        yield Row(f"safetensors: {what}", file, damage, message)
    for what, change, message in _WEIGHTS:
        yield Row(f"weights: {what}", "model", edit_weights(change), message)
    for what, make, message in _OTHERS:
        yield Row(f"safetensors that is {what}", _FILE, _renamed(make), message)
    neither = r"expected model\.safetensors or model\.safetensors\.index\.json, the folder has neither"
    yield Row("no weights", "model", remove(_FILE), neither)
    yield Row("pickled weights only", "model", _pickle_beside, neither + "; pickle files are not read")
    for what, index_damage, message, error in _SHARDS:
        yield Row(f"shards: {what}", "model", index_damage, message, error, model="sharded")
