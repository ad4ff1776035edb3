"""GGUF files: damaged headers, tensors that lie elsewhere, values of the wrong kind, vocabularies that do not fit."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad_inputs.row import Row, pickled, zipped

_FILE = "model.gguf"
_UINT8, _INT8, _UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 0, 1, 4, 5, 6, 7, 8, 9
_EMBEDDING, _QUERY = "token_embd.weight", "blk.0.attn_q.weight"
_TOKENS, _TYPES, _MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"


def _text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """Return a value as the header has it, its type first."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value) if 0 <= value < 2**32 else struct.pack("<Iq", 11, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value[0], str):
        return _list(_STRING, len(value), b"".join(map(_text, value)))
    return _list(_INT32, len(value), struct.pack(f"<{len(value)}i", *value))


def _find(data: bytes, name: str) -> int:
    """Return where a key's value or a tensor's entry goes on behind its name."""
    return data.index(_text(name)) + len(_text(name))


def _value_end(data: bytes, at: int) -> int:
    kind = struct.unpack_from("<I", data, at)[0]
    at += 4
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    if kind == _STRING:
        return at + 8 + int(struct.unpack_from("<Q", data, at)[0])
    if kind != _ARRAY:
        return at + sizes[kind]
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind != _STRING:
        return at + sizes[kind] * int(count)
    for _ in range(count):
        at += 8 + int(struct.unpack_from("<Q", data, at)[0])
    return at


Change = Callable[[bytes], bytes]


def _put(offset: int, format_: str, *values: Any) -> Change:
    """Overwrite bytes at an offset."""
    new = struct.pack(format_, *values)
    return lambda data: data[:offset] + new + data[offset + len(new) :]


def _key(key: str, value: Any) -> Change:
    """Give another value to a key. What follows moves, so the tensors' padding is made anew."""

    def change(data: bytes) -> bytes:
        at = _find(data, key)
        return _realigned(data, data[:at] + _value(value) + data[_value_end(data, at) :])

    return change


def _without(key: str) -> Change:
    def change(data: bytes) -> bytes:
        at = _find(data, key)
        count = struct.unpack_from("<Q", data, 16)[0]
        changed = data[: at - len(_text(key))] + data[_value_end(data, at) :]
        return _realigned(data, _put(16, "<Q", count - 1)(changed))

    return change


def _more(key: str | bytes, value: Any) -> Change:
    """Put a key before all others."""

    def change(data: bytes) -> bytes:
        count = struct.unpack_from("<Q", data, 16)[0]
        changed = data[:24] + _text(key) + _value(value) + data[24:]
        return _realigned(data, _put(16, "<Q", count + 1)(changed))

    return change


def _realigned(old: bytes, new: bytes) -> bytes:
    """Pad the header again after a change of its length."""
    end = _header_end(old)
    moved = end + len(new) - len(old)
    start, new_start = -(-end // 32) * 32, -(-moved // 32) * 32
    return new[:moved] + bytes(new_start - moved) + old[start:]


def _header_end(data: bytes) -> int:
    """Return where the entry of the last tensor ends."""
    num_tensors, num_keys = struct.unpack_from("<QQ", data, 8)
    at = 24
    for _ in range(num_keys):
        at += 8 + int(struct.unpack_from("<Q", data, at)[0])
        at = _value_end(data, at)
    for _ in range(num_tensors):
        at += 8 + int(struct.unpack_from("<Q", data, at)[0])
        at += 4 + 8 * int(struct.unpack_from("<I", data, at)[0]) + 4 + 8
    return at


def _tensor(name: str, offset: int, format_: str, *values: Any) -> Change:
    """Overwrite a part of a matrix's entry: dimensions at 0, sizes at 4 and 12, type at 20, place at 24."""
    return lambda data: _put(_find(data, name) + offset, format_, *values)(data)


def _renamed(old: str, new: str) -> Change:
    assert len(old) == len(new)
    return lambda data: data.replace(_text(old), _text(new), 1)


def _list(kind: int, count: int, content: bytes = b"") -> bytes:
    return struct.pack("<IIQ", _ARRAY, kind, count) + content


def _both(first: Change, second: Change) -> Change:
    return lambda data: second(first(data))


def _cut(size: int) -> Change:
    return lambda data: data[:size]


_CHANGES: list[tuple[str, Change, str]] = [
    # the header
    ("empty", _cut(0), "the file is empty"),
    ("another magic", _put(0, "4s", b"GGML"), "expected the magic bytes 'GGUF', got b'GGML'"),
    ("version 1", _put(4, "<I", 1), "version 1 of GGUF is not supported"),
    ("version 2^31", _put(4, "<I", 2**31), "version 2147483648 of GGUF is not supported"),
    ("the other byte order", _put(4, ">I", 3), "version 50331648 of GGUF is not supported; .* little-endian"),
    ("2^60 keys", _put(16, "<Q", 2**60), f"ends within {2**60} keys"),
    ("2^64 - 1 keys", _put(16, "<Q", 2**64 - 1), "ends within 18446744073709551615 keys"),
    ("2^60 tensors", _put(8, "<Q", 2**60), f"ends within {2**60} tensors"),
    ("no keys", _put(16, "<Q", 0), "has 8 dimensions, expected 1 to 4"),
    ("no tensors", _put(8, "<Q", 0), "token_embd.weight is missing"),
    ("one key too many", lambda data: _put(16, "<Q", struct.unpack_from("<Q", data, 16)[0] + 1)(data), "damaged|type"),
    *[(f"cut to {size} bytes", _cut(size), "damaged or truncated|not a GGUF file")
      for size in (3, 6, 23, 24, 60, 500, 5000)],
    *[(f"cut by {size} bytes", _cut(-size), "damaged or truncated") for size in (1, 100, 30_000, 90_000)],
    ("a key of 2^60 bytes", _put(24, "<Q", 2**60), "the header ends within"),
    ("a key that is not UTF-8", _more(b"\xff\xfe", 1), "is not valid UTF-8"),
    ("a key twice", _more("llama.block_count", 2), "the key 'llama.block_count' occurs twice"),
    ("a value of 2^60 bytes", _more("a", struct.pack("<IQ", _STRING, 2**60)), "the header ends within 'a'"),
    ("a value that is not UTF-8", _more("a", struct.pack("<IQ", _STRING, 2) + b"\xff\xfe"), "'a' is not valid UTF-8"),
    ("a value of a lone surrogate", _more("a", struct.pack("<IQ", _STRING, 3) + b"\xed\xa0\x80"), "not valid UTF-8"),
    ("a value of an unknown type", _more("a", struct.pack("<I", 77)), "'a' has a value of type 77"),
    ("a truth value of 7", _more("a", struct.pack("<IB", _BOOL, 7)), "'a' holds a truth value other than 0 and 1"),
    ("a list of 2^60 numbers", _more("a", _list(_UINT8, 2**60)), f"ends within {2**60} numbers"),
    ("a list of 2^60 strings", _more("a", _list(_STRING, 2**60)), f"ends within {2**60} strings"),
    ("a list of lists", _more("a", _list(_ARRAY, 1) * 1000),
     "'a' has a list of values of type 9"),
    ("a list of an unknown type", _more("a", _list(99, 1)),
     "'a' has a list of values of type 99"),
    ("a list of 20 million small numbers",
     _both(_more("a", _list(_INT8, 20_000_000, b"\x80" * 20_000_000)), _without("llama.block_count")),
     "llama.block_count is missing"),
    ("a list of a million empty strings",
     _both(_more("a", _list(_STRING, 10**6, bytes(8 * 10**6))), _without("llama.block_count")),
     "llama.block_count is missing"),
    ("a key of 10 MB with line breaks", _more("k\n" * 5_000_000, struct.pack("<I", 77)),
     r"'k\\nk\\n.*\.\.\..* has a value of"),
    *[(f"an alignment of {value}", _more("general.alignment", value), "general.alignment is .* a power of two")
      for value in (0, 24, -32, 1 << 40, "32", True)],
    ("an alignment that moves the tensors", _more("general.alignment", 64), "damaged"),
    # tensors
    ("2^31 dimensions", _tensor(_QUERY, 0, "<I", 2**31),
     f"tensor '{_QUERY}' has 2147483648 dimensions, expected 1 to 4"),
    ("no dimensions", _tensor(_QUERY, 0, "<I", 0), f"tensor '{_QUERY}' has 0 dimensions"),
    ("5 dimensions", _tensor(_QUERY, 0, "<I", 5), f"tensor '{_QUERY}' has 5 dimensions"),
    ("3 dimensions, so that the rest moves", _tensor(_QUERY, 0, "<I", 3),
     "the file is damaged|is not known|dimensions"),
    ("a dimension of 0", _tensor(_QUERY, 4, "<Q", 0), f"tensor '{_QUERY}' has rows of 0 values"),
    ("a dimension of 2^63", _tensor(_QUERY, 4, "<Q", 2**63), f"tensor '{_QUERY}' ends at byte"),
    ("dimensions whose product overflows", _tensor(_QUERY, 4, "<QQ", 2**32, 2**32), f"tensor '{_QUERY}' ends at byte"),
    ("dimensions swapped", _tensor("blk.0.ffn_up.weight", 4, "<QQ", 64, 32),
     "'blk.0.ffn_up.weight' of shape .* does not fit"),
    ("an unknown type", _tensor(_QUERY, 20, "<I", 999), f"tensor '{_QUERY}' has the type 999"),
    ("a removed type", _tensor(_QUERY, 20, "<I", 4), f"tensor '{_QUERY}' has the type 4"),
    ("a type of other size", _tensor(_QUERY, 20, "<I", 1), "begins at .* expected .* the file is damaged"),
    ("a type of blocks that do not fit", _tensor(_QUERY, 20, "<I", 12), f"tensor '{_QUERY}' has rows of 32 values"),
    ("integers", _tensor(_QUERY, 20, "<I", 26), f"tensor '{_QUERY}' has the type I32, which is not supported"),
    ("a wrong offset", _tensor(_QUERY, 24, "<Q", 64), f"tensor '{_QUERY}' begins at 64, expected"),
    ("an offset that is not aligned", _tensor(_QUERY, 24, "<Q", 7), f"tensor '{_QUERY}' begins at 7, expected"),
    ("an offset beyond the file", _tensor(_QUERY, 24, "<Q", 2**40),
     f"tensor '{_QUERY}' begins at 1099511627776, expected"),
    ("an offset of 2^64 - 32", _tensor(_QUERY, 24, "<Q", 2**64 - 32), f"tensor '{_QUERY}' begins at"),
    ("a tensor twice", _renamed("blk.1.attn_q.weight", _QUERY), f"tensor '{_QUERY}' occurs twice"),
    ("a tensor of another name", _renamed(_QUERY, "blk.0.attn_x.weight"),
     "'blk.0.attn_x.weight' has no place in a llama"),
    ("a name with a line break", _renamed(_QUERY, "blk.0.att\n\x1b\0.weight"),
     r"'blk\.0\.att\\n\\x1b\\x00\.weight' has no place"),
    ("a name that is not UTF-8", lambda data: data.replace(_QUERY.encode(), b"\xff" * len(_QUERY)), "not valid UTF-8"),
    ("a layer of other digits", _renamed("blk.1.attn_q.weight", "blk.9.attn_q.weight"),
     "blk.9.attn_q.weight' of shape"),
    ("no embedding", _renamed(_EMBEDDING, "token_embX.weight"), "token_embd.weight is missing or no matrix"),
    ("values that are not finite", lambda data: data[:-4] + struct.pack("<f", float("nan")),
     "holds values that are not finite"),
    ("tensors behind the end", lambda data: data[: _header_end(data)], "damaged or truncated"),
    # values
    ("no architecture", _without("general.architecture"), "general.architecture is None; supported: 'gemma3', 'llama'"),
    ("an architecture that is a number", _key("general.architecture", 7),
     "general.architecture is 7, expected a string"),
    ("an architecture of 1 MB", _key("general.architecture", "a" * 1_000_000),
     r"general.architecture is 'a+\.\.\.a+'; supp"),
    ("a name that is a list", _more("general.name", ["a"]), r"general.name is \['a'\], expected a string"),
    *[(f"block_count of {value!r}"[:60], _key("llama.block_count", value), "llama.block_count is")
      for value in (0, -1, 2**31, 3_000, "2", 2.0, [2, 2], True)],
    ("a block_count of two more", _key("llama.block_count", 4), "llama.block_count is 4, but there are 20 tensors"),
    ("no block_count", _without("llama.block_count"), "llama.block_count is missing"),
    *[(f"head_count of {value!r}", _key("llama.attention.head_count", value), "llama.attention.head_count is")
      for value in (0, -4, 2**40, "4", [4, 4])],
    ("another head_count", _key("llama.attention.head_count", 8), "of shape .* does not fit"),
    ("an odd head", _key("llama.attention.key_length", 7), "differ, which is not supported|expected an even number"),
    ("a huge head", _both(_key("llama.attention.value_length", 2**30), _key("llama.attention.key_length", 2**30)),
     "does not fit"),
    ("a hidden size of 2^30", _key("llama.embedding_length", 2**30), "does not fit"),
    ("a hidden size of 10^12", _key("llama.embedding_length", 10**12),
     "llama.embedding_length is 1000000000000, expected"),
    ("an epsilon of NaN", _key("llama.attention.layer_norm_rms_epsilon", float("nan")),
     "epsilon is nan, expected a finite"),
    ("an epsilon that is a string", _key("llama.attention.layer_norm_rms_epsilon", "0"),
     "epsilon is '0', expected a finite"),
    ("an epsilon of 0", _key("llama.attention.layer_norm_rms_epsilon", 0.0),
     "'rms_norm_eps' must be a finite number above 0"),
    ("a rope base of infinity", _key("llama.rope.freq_base", float("inf")),
     "llama.rope.freq_base is inf, expected a finite"),
    ("a rope base below 0", _key("llama.rope.freq_base", -1.0), "llama.rope.freq_base is -1.0, expected"),
    ("a rope scaling that is a list", _more("llama.rope.scaling.type", ["linear"]), "rope.scaling.type is .* a string"),
    ("a rope scaling without a factor", _more("llama.rope.scaling.type", "linear"), "rope.scaling.factor is missing"),
    ("a context of 0", _key("llama.context_length", 0), "llama.context_length is 0, expected a whole number"),
    ("experts in a list", _more("llama.expert_count", [8]), r"llama.expert_count is array\(\[8\]"),
    ("a split in a list", _more("split.count", [2]), "split.count is .* expected a whole number"),
    # vocabulary
    ("no tokens", _without(_TOKENS), f"{_TOKENS} is missing"),
    ("tokens that are numbers", _key(_TOKENS, [1, 2, 3]), f"{_TOKENS} is missing or not a list of strings"),
    ("tokens that are one string", _key(_TOKENS, "abc"), f"{_TOKENS} is missing or not a list of strings"),
    ("one token less", _key(_TOKENS, ["a"] * 319), "319 tokens but 320 token types"),
    ("more tokens than embeddings", _key(_TOKENS, [str(i) for i in range(321)]), "321 tokens but 320 embedding rows"),
    ("the same token twice", _key(_TOKENS, ["a"] * 320), "319 tokens occur twice"),
    ("a token of 10 MB", _key(_TOKENS, ["a" * 10_000_000, *map(str, range(319))]), "a token has 10000000 characters"),
    ("a token that is not UTF-8", lambda data: data.replace(_text("<|im_end|>"), _text(b"\xff" * 10), 1),
     "not valid UTF-8"),
    ("tokens of other types", _key(_TYPES, [2**31 - 1 - i for i in range(320)]),
     r"token types \[.*\.\.\.\] are not supported"),
    ("types that are strings", _key(_TYPES, ["1"] * 320), f"{_TYPES} is missing or not a list of numbers"),
    ("types that are a number", _key(_TYPES, 1), f"{_TYPES} is missing or not a list of numbers"),
    ("no types", _without(_TYPES), f"{_TYPES} is missing"),
    ("merges of three", _key(_MERGES, ["a b c"]), "the merge 'a b c' is not two tokens"),
    ("merges of nothing", _key(_MERGES, [" a"]), "the merge ' a' is not two tokens"),
    ("merges of absent tokens", _key(_MERGES, ["q absent"]), "the merges do not fit the vocabulary"),
    ("merges that are numbers", _key(_MERGES, [1, 2]), f"{_MERGES} is missing or not a list of strings"),
    ("a million merges of one", _key(_MERGES, ["t h"] * 1_000_000), "there are 1000000 merges for 320 tokens"),
    *[(f"bos_token_id of {value!r}", _key("tokenizer.ggml.bos_token_id", value), "bos_token_id is .* has 320 tokens")
      for value in (320, -1, 2**31, 2**63 - 1, "1", 1.0, [1], True)],
    ("an end of turn that is no token", _more("tokenizer.ggml.eot_token_id", 10**9),
     "eot_token_id is 1000000000, the voc"),
    ("add_bos_token of 1", _more("tokenizer.ggml.add_bos_token", 1), "add_bos_token is 1, expected true or false"),
    ("add_space_prefix in a list", _more("tokenizer.ggml.add_space_prefix", [0]),
     "add_space_prefix is .* true or false"),
    ("a tokenizer in a list", _key("tokenizer.ggml.model", ["gpt2"]), "tokenizer.ggml.model is .* expected a string"),
    ("an unknown tokenizer", _key("tokenizer.ggml.model", "rwkv"), "tokenizer.ggml.model is 'rwkv'; supported"),
    ("a template that is a number", _key("tokenizer.chat_template", 3),
     "tokenizer.chat_template is 3, expected a string"),
    ("SentencePiece with the tokens of another", _both(
        _more("tokenizer.ggml.add_space_prefix", False), _key("tokenizer.ggml.model", "llama")),
     "256 byte tokens are missing"),
]  # fmt: skip


def _changed(change: Change) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / _FILE).write_bytes(change((folder / _FILE).read_bytes()))

    return damage


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / _FILE).unlink()
        make(folder / _FILE)

    return damage


def rows() -> Iterator[Row]:
    for what, change, message in _CHANGES:
        file = "config.json" if "rms_norm_eps" in message else _FILE
        yield Row(f"GGUF: {what}", file, _changed(change), message, model="gguf")
    for what, make in (("a pickle", pickled), ("a zip archive", zipped)):
        damage = _instead(lambda file, make=make: file.write_bytes(make(file.parent)))
        yield Row(f"GGUF that is {what}", _FILE, damage, "not a GGUF file", model="gguf")
    for what, make, message, error in [
        ("a pipe", os.mkfifo, "expected a regular file", ValueError),
        ("a device", lambda file: file.symlink_to("/dev/zero"), "expected a regular file", ValueError),
        ("a folder", Path.mkdir, "Is a directory", IsADirectoryError),
        ("a link to itself", lambda file: file.symlink_to(file.name), "[Ll]evels of symbolic links", OSError),
        ("a link to nothing", lambda file: file.symlink_to("nothing"), "No such file", FileNotFoundError),
    ]:
        yield Row(f"GGUF that is {what}", _FILE, _instead(make), message, error, model="gguf")
