"""Reads a GGUF file: its key-value pairs and its tensors, which are de-quantised a part at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from titer.models.gguf_header import read_header
from titer.models.gguf_metadata import Metadata, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PART = 1 << 20  # values; a multiple of every type's block


class GgufFile:
    """The content of a GGUF file, by the names that llama.cpp gives it.

    Attributes
    ----------
    metadata
        Key-value pairs of the header.
    architecture
        The family of the model, which also starts the names of its own keys.
    tensors
        Tensors by name, in the order of the file; nothing of them is read yet.

    Raises
    ------
    ValueError
        If the file is not GGUF, is damaged, or is one of several that a model is split over.
    OSError
        If the file cannot be read.
    """

    def __init__(self, source: Path) -> None:
        self.metadata = Metadata({}, source.name)
        self._data = _mapped(source)
        self.metadata.pairs, self.tensors = read_header(self._data, self.refuse)
        if (count := self.metadata.size("split.count", 1)) > 1:
            raise self.refuse(f"the model is split over {count} files; merge them first")
        self.architecture = self.metadata.text("general.architecture", None)

    def size(self, key: str, *default: int) -> int:
        """Return one of the architecture's own whole numbers; without a default it must be there."""
        value: int = self.metadata.size(f"{self.architecture}.{key}", *default)
        return value

    def number(self, key: str, *default: float) -> float:
        """Return one of the architecture's own numbers."""
        value: float = self.metadata.number(f"{self.architecture}.{key}", *default)
        return value

    def text(self, key: str, *default: str) -> str:
        """Return one of the architecture's own strings."""
        value: str = self.metadata.text(f"{self.architecture}.{key}", *default)
        return value

    def dequantised(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as float32."""
        import numpy as np

        tensor = self.tensors[name]
        values = np.empty((math.prod(tensor.shape[:-1]), tensor.shape[-1]), dtype=np.float32)
        for rows, columns, part in self.parts(name):
            values[rows, columns] = part
        return values.reshape(tensor.shape)

    def parts(self, name: str) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        """Yield the rows, the columns and the values of one part of a tensor after the other."""
        from gguf.constants import GGML_QUANT_SIZES
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        num_rows, num_columns = math.prod(tensor.shape[:-1]), tensor.shape[-1]
        block, block_bytes = GGML_QUANT_SIZES[tensor.type]
        stored = self._data[tensor.begin : tensor.end].reshape(num_rows, -1)
        step = max(1, _PART // num_columns)
        for row in range(0, num_rows, step):
            for column in range(0, num_columns, _PART):
                end = min(column + _PART, num_columns)
                part = stored[row : row + step, column // block * block_bytes : end // block * block_bytes]
                try:
                    values = dequantize(part, tensor.type)
                except NotImplementedError:
                    raise self.refuse(
                        f"tensor {shown(name)} has the type {tensor.type.name}, which is not supported"
                    ) from None
                yield slice(row, row + step), slice(column, end), values

    def refuse(self, reason: str) -> ValueError:
        """Return the exception for a file that says what this conversion does not know exactly."""
        return self.metadata.refuse(reason)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file as hexadecimal digits.

    Raises
    ------
    ValueError
        If it is a device, a pipe or a socket, which might not end.
    OSError
        If it cannot be read.
    """
    require_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_regular(path: Path) -> None:
    """Raise ValueError for a device, a pipe or a socket; folders and what is missing are left to whoever opens it."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"[models] expected a regular file, got a device, pipe or socket ({path})")


def _mapped(source: Path) -> NDArray[np.uint8]:
    import numpy as np

    require_regular(source)
    if source.stat().st_size == 0:
        raise ValueError(f"[gguf] the file is empty ({source.name})")
    return np.memmap(source, mode="r", dtype=np.uint8)
