"""Files that are missing, are no files, lead elsewhere, or are no JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from bad_inputs.row import Row, edit, remove, write

_JSON_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
_READ_FILES = [*_JSON_FILES, "chat_template.jinja", "model.safetensors"]


def _replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        remove(name)(folder)
        make(folder / name)

    return damage


def _link_outside(file: Path) -> None:
    outside = file.parent.parent / "outside"
    outside.write_text("{}")
    file.symlink_to(outside)


_NO_FILES: dict[str, tuple[Callable[[Path], object], str, type[Exception]]] = {
    "a folder": (Path.mkdir, "Is a directory", IsADirectoryError),
    "a pipe": (os.mkfifo, "regular file", ValueError),
    "a link to a device": (lambda file: file.symlink_to("/dev/zero"), "link that leaves the folder", ValueError),
    "a link out of the folder": (_link_outside, "link that leaves the folder", ValueError),
    "a link to itself": (lambda file: file.symlink_to(file.name), "[Ll]evels of symbolic links", OSError),
    "a link to nothing": (lambda file: file.symlink_to("nothing"), "No such file", FileNotFoundError),
}

_MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "text is empty"),
    "cut short": (b'{"a": [1, 2', "unexpected end of input"),
    "a list": (b"[]", "expected an? (JSON )?object"),
    "a number": (b"3", "expected an? (JSON )?object"),
    "two values": (b"{} {}", "expected end of input"),
    "a key twice": (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
    "a key twice, one of them escaped": (b'{"x": {"b": 1, "\\u0062": 2}}', "duplicate key 'b'"),
    "a key of 5 MB twice": (b'{"%s": 1, "%s": 2}' % ((b"k" * 5_000_000,) * 2), r"duplicate key 'k+\.\.\.'"),
    "not UTF-8": (b'{"a": "\xff\xfe"}', "ill-formed UTF-8"),
    "UTF-8 that is too long": (b'{"a": "\xc0\xaf"}', "ill-formed UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "NUL byte at byte"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "NUL": (b'{"a": 1}\0{"a": 2}', "NUL byte at byte 9"),
    "a control character": (b'{"a": "\x1b[31m"}', "control character"),
    "a lone surrogate": (b'{"a": "\\ud800"}', "surrogate"),
    "a lone surrogate in a key": (b'{"\\udc00": 1}', "surrogate"),
    "NaN": (b'{"a": NaN}', "invalid literal"),
    "Infinity": (b'{"a": -Infinity}', "invalid number|invalid literal"),
    "1e400": (b'{"a": 1e400}', "beyond the range of a double"),
    "a number of 10 MB": (b'{"a": 1%s}' % (b"0" * 10_000_000), "beyond the range of a double"),
    "nested lists": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 64"),
    "nested objects": (b'{"a":' * 100_000, "nested deeper than 64"),
    "two million objects": (b'{"a": [' + b"{}," * 2_000_000 + b"{}]}", "so many small values"),
    "a comment": (b'{"a": 1 /* one */}', "invalid literal"),
    "Python": (b"{'a': True}", "invalid literal"),
}


# What `show` reads and loading does not, or reads otherwise.
_SHOWN: list[tuple[str, str, Callable[[Path], object], str, type[Exception]]] = [
    ("no config.json", "model", remove("config.json"), "expected a model folder with a config.json", FileNotFoundError),
    ("no weights", "model", remove("model.safetensors"), r"expected \*\.safetensors", FileNotFoundError),
    ("a text_config that is a list", "config.json", edit("config.json", {"text_config": []}),
     "'text_config'", ValueError),
    ("weights that are a pipe", "model.safetensors", _replace("model.safetensors", os.mkfifo),
     "regular file", ValueError),
    ("weights that are a link outside", "model", _replace("model.safetensors", _link_outside),
     "leaves the fol", ValueError),
    ("weights that are cut", "model.safetensors", write("model.safetensors", b"\x10"),
     "not a safetensors file", ValueError),
    ("a tokenizer without a model", "tokenizer.json", edit("tokenizer.json", {"model": [1]}), "'model'", ValueError),
    ("provenance that is a list", "titer.json", write("titer.json", "[]"), "expected an object", ValueError),
    ("provenance that is nested", "titer.json", write("titer.json", '{"a":' * 100_000), "nested deeper", ValueError),
    ("a configuration of 9 MB", "config.json", edit("config.json", {"a": "x" * 9_000_000}), "the limit is", ValueError),
]  # fmt: skip


def rows() -> Iterator[Row]:
    for what, file, damage, message, error in _SHOWN:
        yield Row(f"show: {what}", file, damage, message, error, load="show")
    for name in _READ_FILES:
        for what, (make, message, error) in _NO_FILES.items():
            if (name, what) == ("model.safetensors", "a folder"):
                message, error = "Is a directory", IsADirectoryError
            yield Row(f"{name} is {what}", name, _replace(name, make), message, error)
    for name in _JSON_FILES:
        for what, (content, message) in _MALFORMED.items():
            yield Row(f"{name} holds {what}", name, write(name, content), message)
    for name in ("config.json", "tokenizer.json"):
        yield Row(f"no {name}", name, remove(name), "No such file", FileNotFoundError)
    huge = _replace("tokenizer_config.json", lambda file: os.truncate(_touched(file), 1 << 40))
    yield Row("a tokenizer_config.json of 1 TiB", "tokenizer_config.json", huge, "1099511627776 bytes, the limit is")
    huge = _replace("chat_template.jinja", lambda file: os.truncate(_touched(file), 1 << 40))
    yield Row("a chat template of 1 TiB", "chat_template.jinja", huge, "1099511627776 bytes, the limit is")


def _touched(file: Path) -> Path:
    file.touch()
    return file
