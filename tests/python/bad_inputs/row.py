"""A row of the table, and the ways in which rows damage a good model."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file, save_file

CANARY = "canary"
"""Name of the file that code in a model would write beside the model's folder."""


class Row(NamedTuple):
    """One bad input.

    Attributes
    ----------
    id
        What is wrong.
    file
        The file that the message must name.
    damage
        Makes a good model bad; takes its folder.
    message
        A regular expression that the message must match.
    error
        The class of the exception, exactly.
    model
        What is damaged: the tiny model in one file or in two (`sharded`), or `model.gguf` in a folder of its own.
    load
        How it is read: `model` loads it and renders a chat, `show` describes it, `answer` generates a token,
        `dataset` opens `data.jsonl` beside it.
    """

    id: str
    file: str
    damage: Callable[[Path], object]
    message: str
    error: type[Exception] = ValueError
    model: Literal["folder", "sharded", "gguf"] = "folder"
    load: Literal["model", "show", "answer", "dataset"] = "model"


def write(name: str, content: bytes | str) -> Callable[[Path], None]:
    """Replace a file."""
    data = content.encode() if isinstance(content, str) else content

    def damage(folder: Path) -> None:
        remove(name)(folder)
        (folder / name).write_bytes(data)

    return damage


def remove(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return damage


def edit(name: str, changes: dict[str, Any]) -> Callable[[Path], None]:
    """Change keys of a JSON file, given as `a.b.0.c`; the value `...` removes one."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        for path, value in changes.items():
            *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
            target = content
            for parent in parents:
                target = target[parent]
            if value is ...:
                target.pop(last, None)
            else:
                target[last] = value
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return damage


def patch_json(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace a piece of a JSON file's text: for what Python's json module would not write."""

    def damage(folder: Path) -> None:
        text = json.dumps(json.loads((folder / name).read_text(encoding="utf-8")))
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return damage


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return damage


def with_header(header: bytes, data: bytes = b"") -> bytes:
    """Return a safetensors file of this header."""
    return struct.pack("<Q", len(header)) + header + data


def edit_header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the header of the weights and leave their data."""

    def damage(folder: Path) -> None:
        file = folder / "model.safetensors"
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        file.write_bytes(with_header(json.dumps(header).encode(), content[8 + length :]))

    return damage


def together(*damages: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for one in damages:
            one(folder)

    return damage


class _Bomb:
    """Writes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.canary), "w")


def pickled(folder: Path, protocol: int = 2) -> bytes:
    """Return a pickle that writes the canary when it is loaded."""
    return pickle.dumps(_Bomb(folder.parent / CANARY), protocol)


def zipped(folder: Path) -> bytes:
    """Return such a pickle in the zip archive that torch.save writes."""
    stream = io.BytesIO()
    torch.save({"model.norm.weight": _Bomb(folder.parent / CANARY)}, stream)
    return stream.getvalue()
