"""Data sets that are no files, no JSON lines, or take as much time and memory as a line can."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bad_inputs.row import Row, write

_FILE = "data.jsonl"
_GOOD = b'{"prompt":"a","response":"b"}\n'
_LONGEST = 16 << 20


def _with_metadata(content: bytes) -> bytes:
    return b'{"prompt":"a","response":"b","metadata":{"a":%s}}\n' % content


def _turns(count: int) -> bytes:
    turn = b'{"role":"user","content":"a"},{"role":"assistant","content":"b"}'
    return b'{"messages":[%s,{"role":"bot","content":"c"}]}\n' % b",".join([turn] * (count // 2))


def _hole(folder: Path) -> None:
    write(_FILE, _GOOD)(folder)
    os.truncate(folder / _FILE, 1 << 40)


_CONTENTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "holds no records"),
    "a blank line": (_GOOD + b"\n" + _GOOD, ":2: the line is blank"),
    "a list of records": (b"[" + _GOOD.strip() + b"]\n", ":1: expected an object, got a list"),
    "a byte order mark": (b"\xef\xbb\xbf" + _GOOD, "byte order mark"),
    "UTF-16": (_GOOD.decode().encode("utf-16"), "NUL byte at byte"),
    "Latin-1": (_GOOD + '{"prompt":"é","response":"b"}\n'.encode("latin-1"), "ill-formed UTF-8.*:2"),
    "a lone surrogate": (b'{"prompt":"a","response":"\\udc00"}\n', "surrogate.*:1"),
    "a key with line breaks": (b'{"a\\n\\u001b[31m":1}\n', r":1: unknown key 'a\\x0a\\x1b\[31m'"),
    "a key of 5 MB": (b'{"%s":1}\n' % (b"k" * 5_000_000), r":1: unknown key 'k+\.\.\.'"),
    "a role of 5 MB": (b'{"messages":[{"role":"%s","content":"a"}]}\n' % (b"r" * 5_000_000), r"'messages\[0\].role'"),
    "an id of 5 MB twice": (_GOOD.replace(b"{", b'{"id":"%s",' % (b"i" * 5_000_000)) * 2, "so it is on line 1"),
    "a line that is cut short": (_GOOD + _GOOD[:15], ":2.*is it cut short"),
    "a line that is too long": (_GOOD[:-1] + b" " * _LONGEST + b"\n", ":1: the line has more than 16777216 bytes"),
    "line breaks only": (b"\n" * 10_000_000, ":1: the line is blank"),
    "carriage returns for line breaks": (_GOOD.replace(b"\n", b"\r") * 2, "expected end of input.*:1"),
    "nested lists": (_with_metadata(b"[" * 1_000_000), "nested deeper than 64"),
    "four million objects": (_with_metadata(b"[" + b"{}," * 4_000_000 + b"{}]"), "so many small values"),
    "200,000 turns": (_turns(200_000), r"'messages\[200000\]\.role' is 'bot'; expected user or assistant"),
    "a million records and one id twice": (
        b"".join(b'{"id":"%d","prompt":"a","response":"b"}\n' % (i % 999_999) for i in range(1_000_000)),
        ":1000000: 'id' is '0', and so it is on line 1",
    ),
}  # fmt: skip


def rows() -> Iterator[Row]:
    for what, (content, message) in _CONTENTS.items():
        yield Row(f"a data set holds {what}", _FILE, write(_FILE, content), message, load="dataset")
    yield Row(
        "a data set is a folder",
        _FILE,
        lambda folder: (folder / _FILE).mkdir(),
        "Is a directory",
        IsADirectoryError,
        load="dataset",
    )
    yield Row("a data set is a pipe", _FILE, lambda folder: os.mkfifo(folder / _FILE), "regular file", load="dataset")
    yield Row("a data set is a device", _FILE, lambda folder: (folder / _FILE).symlink_to("/dev/zero"),
              "regular file", load="dataset")  # fmt: skip
    yield Row("a data set is missing", _FILE, lambda folder: None, "No such file", FileNotFoundError, load="dataset")
    yield Row("a data set is a hole of 1 TiB", _FILE, _hole, ":2: the line has more than", load="dataset")
