"""The header of a GGUF file: key-value pairs, and where its tensors lie.

The reader of the `gguf` package trusts its file: counts beyond the end keep it busy for ever, and every number of an
array costs it some hundred bytes. Here a count is believed once the file is long enough for it, arrays of numbers stay
in the file, and tensors must follow each other as the format demands.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from titer.models.gguf_metadata import shown

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {
    **{0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 10: "<u8", 11: "<i8"},
    **{6: "<f4", 12: "<f8", _BOOL: "?"},
}
_ALIGNMENT_KEY = "general.alignment"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor: its `shape` as in PyTorch, its type, and the bytes of the file that hold it."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    begin: int
    end: int


def read_header(
    data: NDArray[np.uint8], refuse: Callable[[str], ValueError]
) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """Return the key-value pairs and the tensors of a file, both by name and in its order.

    Parameters
    ----------
    data
        The whole file. Lists of numbers are returned as arrays that lie in it.
    refuse
        Makes the exception for a reason.

    Raises
    ------
    ValueError
        If the file is no GGUF file, is damaged, or is one of a kind that is not supported.
    """
    reader = _Reader(data, refuse)
    magic = reader.bytes(4, "the magic bytes")
    if magic != b"GGUF":
        raise refuse(f"expected the magic bytes 'GGUF', got {magic!r}; not a GGUF file")
    version = reader.number("<I", "the version")
    if version not in _VERSIONS:
        raise refuse(f"version {version} of GGUF is not supported; supported: 2 and 3, little-endian")
    num_tensors = reader.count("tensors", at_least=8 + 4 + 8 + 4 + 8)
    num_pairs = reader.count("keys", at_least=8 + 4 + 1)
    metadata: dict[str, Any] = {}
    for index in range(num_pairs):
        key = reader.string(f"key {index}")
        if key in metadata:
            raise refuse(f"the key {shown(key)} occurs twice")
        metadata[key] = reader.value(reader.number("<I", key), key)
    places = [_Place.read(reader, f"tensor {index}") for index in range(num_tensors)]
    alignment = metadata.get(_ALIGNMENT_KEY, 32)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment.bit_count() != 1:
        raise refuse(f"{_ALIGNMENT_KEY} is {shown(alignment)}, expected a power of two")
    return metadata, _tensors(places, reader.position, alignment, data.size, refuse)


def _tensors(
    places: list[_Place], header_end: int, alignment: int, size: int, refuse: Callable[[str], ValueError]
) -> dict[str, TensorInfo]:
    start = -(-header_end // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    expected = 0
    for place in places:
        name, begin, end = place.name, start + place.offset, start + place.offset + place.num_bytes(refuse)
        if name in tensors:
            raise refuse(f"tensor {shown(name)} occurs twice")
        if place.offset != expected:
            raise refuse(f"tensor {shown(name)} begins at {place.offset}, expected {expected}; the file is damaged")
        if end > size:
            raise refuse(f"tensor {shown(name)} ends at byte {end} of {size}; the file is damaged or truncated")
        expected = -(-(place.offset + end - begin) // alignment) * alignment
        tensors[name] = TensorInfo(name, place.dimensions[::-1], place.quantisation(refuse), begin, end)
    return tensors


@dataclass(frozen=True, slots=True)
class _Place:
    """What the header says about a tensor. The first dimension is that of a row."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int

    @classmethod
    def read(cls, reader: _Reader, what: str) -> _Place:
        name = reader.string(f"the name of {what}")
        what = f"tensor {shown(name)}"
        num_dimensions = reader.number("<I", f"the dimensions of {what}")
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise reader.refuse(f"{what} has {num_dimensions} dimensions, expected 1 to {_MAX_DIMENSIONS}")
        dimensions = tuple(reader.number("<Q", f"the shape of {what}") for _ in range(num_dimensions))
        return cls(name, dimensions, reader.number("<I", f"the type of {what}"), reader.number("<Q", f"{what}"))

    def quantisation(self, refuse: Callable[[str], ValueError]) -> GGMLQuantizationType:
        from gguf import GGMLQuantizationType

        try:
            return GGMLQuantizationType(self.type)
        except ValueError:
            raise refuse(f"tensor {shown(self.name)} has the type {self.type}, which is not known here") from None

    def num_bytes(self, refuse: Callable[[str], ValueError]) -> int:
        from gguf.constants import GGML_QUANT_SIZES

        block, block_bytes = GGML_QUANT_SIZES[self.quantisation(refuse)]
        if 0 in self.dimensions or self.dimensions[0] % block:
            raise refuse(
                f"tensor {shown(self.name)} has rows of {self.dimensions[0]} values and the shape "
                f"{list(self.dimensions[::-1])}, expected a multiple of {block} and no zero"
            )
        return math.prod(self.dimensions) // int(block) * int(block_bytes)


class _Reader:
    """Reads the header from its start on; nothing is read, and no count believed, beyond the end of the file."""

    def __init__(self, data: NDArray[np.uint8], refuse: Callable[[str], ValueError]) -> None:
        self._data = data
        self._view = data.data
        self.refuse = refuse
        self.position = 0

    def bytes(self, count: int, what: str) -> bytes:
        return bytes(self._view[self._advance(count, what) : self.position])

    def number(self, format_: str, what: str) -> int:
        """Read an integer."""
        return int(struct.unpack_from(format_, self._view, self._advance(struct.calcsize(format_), what))[0])

    def count(self, what: str, at_least: int) -> int:
        """Read how many things follow that take that many bytes each."""
        count = self.number("<Q", f"the number of {what}")
        if count > (self._view.nbytes - self.position) // at_least:
            self._end(f"{count} {what}")
        return count

    def string(self, what: str) -> str:
        try:
            return self.bytes(self.number("<Q", what), what).decode()
        except UnicodeDecodeError as error:
            raise self.refuse(f"{shown(what)} is not valid UTF-8: {error}") from None

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.string(key)
        if kind in _NUMBERS:
            return self._numbers(kind, 1, key)[0].item()
        if kind != _ARRAY:
            raise self.refuse(f"{shown(key)} has a value of type {kind}, which is not known here")
        kind = self.number("<I", key)
        if kind == _STRING:
            return [self.string(key) for _ in range(self.count(f"strings of {shown(key)}", at_least=8))]
        if kind in _NUMBERS:
            return self._numbers(kind, self.count(f"numbers of {shown(key)}", at_least=1), key)
        raise self.refuse(f"{shown(key)} has a list of values of type {kind}, which is not supported")

    def _numbers(self, kind: int, count: int, key: str) -> NDArray[Any]:
        import numpy as np

        dtype = np.dtype(_NUMBERS[kind])
        begin = self._advance(count * dtype.itemsize, key)
        if kind == _BOOL and count and int(self._data[begin : self.position].max()) > 1:
            raise self.refuse(f"{shown(key)} holds a truth value other than 0 and 1")
        return np.frombuffer(self._view, dtype, count, begin)

    def _advance(self, count: int, what: str) -> int:
        begin = self.position
        if count > self._view.nbytes - begin:
            self._end(shown(what))
        self.position += count
        return begin

    def _end(self, what: str) -> NoReturn:
        raise self.refuse(f"the header ends within {what}, the file is damaged or truncated")
