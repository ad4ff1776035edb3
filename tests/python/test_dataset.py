"""Records are those of the file, their hashes are what the documentation defines, and bad files are refused by line."""

from __future__ import annotations

import hashlib
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import titer

QUICK = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = {"prompt": "Two plus two?", "response": " Four."}
CHAT = {
    "id": "sum-1",
    "task": "sum",
    "messages": [
        {"role": "system", "content": ""},
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "3+3"},
        {"role": "assistant", "content": "6"},
    ],
    "metadata": {"steps": [1, 2.5, None], "source": "é"},
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_lines(*records: Any, name: str = "notes.jsonl", **options: Any) -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(record, **options) + "\n" for record in records), encoding="utf-8")
        return file

    return to_lines


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def hash_of(record: Any) -> bytes:
    """Return what the documentation says of a record's hash."""
    return sha256(json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def root_of(hashes: list[bytes]) -> bytes:
    """Return what it says of the root, level by level."""
    level = [sha256(b"\x00" + one) for one in hashes]
    while len(level) > 1:
        pairs = [sha256(b"\x01" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) // 2 * 2 :]
    return level[0]


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_SAYS_SOMETHING = _TEXT.map(lambda text: text + "x")
_INTEGERS = st.integers(-(1 << 63), (1 << 64) - 1)
_VALUES = st.recursive(
    st.none() | st.booleans() | _INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_RECORDS = st.fixed_dictionaries(
    {"prompt": _SAYS_SOMETHING, "response": _SAYS_SOMETHING},
    optional={"task": _SAYS_SOMETHING, "metadata": st.dictionaries(_TEXT, _VALUES, max_size=3)},
)


@QUICK
@given(records=st.lists(_RECORDS, min_size=1, max_size=9), ascii_only=st.booleans(), indent=st.sampled_from([0, 1, 7]))
def test_hashes_are_those_of_the_definition(
    write: Callable[..., Path], records: list[Any], ascii_only: bool, indent: int
) -> None:
    separators = ("," + " " * indent, " " * indent + ":")
    data = titer.Dataset(write(*records, ensure_ascii=ascii_only, separators=separators))
    hashes = [hash_of(record) for record in records]
    assert data.hashes == [one.hash for one in data] == [one.hex() for one in hashes]
    assert data.merkle_root == root_of(hashes).hex()
    assert [one.metadata for one in data] == [record.get("metadata", {}) for record in records]


def test_floats_are_written_as_python_writes_them(write: Callable[..., Path]) -> None:
    rng = random.Random(0)
    bits = (rng.getrandbits(64).to_bytes(8, "little") for _ in range(20_000))
    numbers = [one for one in memoryview(b"".join(bits)).cast("d") if one - one == 0]
    numbers += [rng.uniform(0, 1) * 10.0 ** rng.randint(-7, 19) for _ in range(20_000)]
    record = PLAIN | {"metadata": {"numbers": numbers}}
    assert titer.Dataset(write(record)).hashes == [hash_of(record).hex()]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 33])
def test_root_depends_on_order(write: Callable[..., Path], count: int) -> None:
    records = [PLAIN | {"id": str(i)} for i in range(count)]
    data = titer.Dataset(write(*records))
    assert data.merkle_root == root_of([hash_of(record) for record in records]).hex()
    if count > 1:
        reordered = titer.Dataset(write(*records[1:], records[0], name="reordered.jsonl"))
        assert sorted(reordered.hashes) == sorted(data.hashes)
        assert reordered.merkle_root != data.merkle_root


def test_records_are_those_of_the_file(write: Callable[..., Path]) -> None:
    file = write(PLAIN, CHAT)
    data = titer.Dataset(str(file))
    assert (len(data), data.path) == (2, file)
    plain, chat = data
    assert plain.messages == [
        {"role": "user", "content": "Two plus two?"},
        {"role": "assistant", "content": " Four."},
    ]
    assert (plain.from_prompt, plain.id, plain.task, plain.metadata) == (True, None, None, {})
    assert chat.messages == CHAT["messages"]
    assert (chat.from_prompt, chat.id, chat.task, chat.metadata) == (False, "sum-1", "sum", CHAT["metadata"])
    assert repr(chat) == f"Record(id='sum-1', task='sum', messages=5, hash='{chat.hash[:12]}...')"
    assert repr(data) == f"Dataset({str(file)!r}, 2 records, merkle_root='{data.merkle_root[:12]}...')"


def test_records_are_reached_like_those_of_a_list(write: Callable[..., Path]) -> None:
    data = titer.Dataset(write(*(PLAIN | {"id": str(i)} for i in range(5))))
    assert [data[i].id for i in (0, 4, -1, -5)] == ["0", "4", "4", "0"]
    for part in (slice(None), slice(1, 3), slice(None, None, -2), slice(-2, 9), slice(4, 1)):
        assert [one.id for one in data[part]] == list("01234")[part]
    for index in (5, -6):
        with pytest.raises(IndexError, match=rf"expected an index from -5 to 4, got {index}"):
            data[index]
    with pytest.raises(TypeError):
        data["0"]  # type: ignore[call-overload]


def test_mistakes_name_file_line_and_field(write: Callable[..., Path]) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "bot", "content": "c"}]
    file = write(PLAIN, {"messages": turns})
    with pytest.raises(ValueError) as refusal:
        titer.Dataset(file)
    assert str(refusal.value) == f"[dataset] {file}:2: 'messages[2].role' is 'bot'; expected user or assistant"
    with pytest.raises(FileNotFoundError):
        titer.Dataset(file.with_name("none.jsonl"))
    with pytest.raises(IsADirectoryError):
        titer.Dataset(file.parent)


def test_a_record_that_changes_is_refused(write: Callable[..., Path]) -> None:
    file = write(PLAIN, CHAT)
    data = titer.Dataset(file)
    with file.open("r+b") as stream:
        stream.write(file.read_bytes().replace(b"Four", b"Five"))
    with pytest.raises(ValueError, match="1: the record is not the one that was there"):
        data[0]
    assert data[1].id == "sum-1"


def test_opening_can_be_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text((json.dumps(PLAIN) + "\n") * 500_000)

    def stop(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(TimeoutError):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            titer.Dataset(file)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
