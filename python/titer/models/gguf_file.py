"""Reads a GGUF file: its key-value pairs and its tensors, which are de-quantised one at a time."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader
    from numpy.typing import NDArray

_REQUIRED = object()


class GgufFile:
    """The content of a GGUF file, by the names that llama.cpp gives it.

    Attributes
    ----------
    origin
        Name of the file, for messages.
    metadata
        Key-value pairs of the header.
    tensors
        Tensors of the `gguf` package by name, in the order of the file; nothing of them is read yet.

    Raises
    ------
    ValueError
        If the file is not GGUF, is damaged, or is one of several that a model is split over.
    OSError
        If the file cannot be read.
    """

    def __init__(self, source: Path) -> None:
        reader = _open(source)
        self.origin = source.name
        self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in reader.tensors}
        if (count := self.metadata.get("split.count", 1)) > 1:
            raise ValueError(f"[gguf] the model is split over {count} files; merge them first ({self.origin})")

    @cached_property
    def architecture(self) -> str | None:
        """The family of the model, which also starts the names of its own keys."""
        return self.metadata.get("general.architecture")

    def value(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return one of the architecture's own values, e.g. `block_count`; without a default it must be there."""
        found = self.metadata.get(f"{self.architecture}.{key}", default)
        if found is _REQUIRED:
            raise ValueError(f"[gguf] {self.architecture}.{key} is missing ({self.origin})")
        return found

    def float32(self, key: str, default: Any = _REQUIRED) -> float:
        """Return a value as the shortest decimal that is the same float32: GGUF stores 1e-5 as 9.9999997e-06."""
        import numpy as np

        return float(str(np.float32(self.value(key, default))))

    def dequantised(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as float32 in row-major order, the shape as in PyTorch."""
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        values: NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type)
        return values.reshape([int(size) for size in reversed(tensor.shape)])

    def refuse(self, reason: str) -> ValueError:
        """Return the exception for a file that says what this conversion does not know exactly."""
        return ValueError(f"[gguf] {reason} ({self.origin})")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open(source: Path) -> GGUFReader:
    from gguf import GGUFReader

    with source.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"[gguf] expected the magic bytes 'GGUF', got {magic!r}; not a GGUF file ({source.name})")
    try:
        return GGUFReader(source)
    except Exception as error:  # the reader lets numpy's and struct's exceptions through
        raise ValueError(f"[gguf] the header cannot be read, the file is damaged: {error} ({source.name})") from error
