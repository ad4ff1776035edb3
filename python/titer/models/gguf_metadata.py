"""Reads values of a GGUF header: each is of the kind that is asked for, or refused by its name."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80


def shown(value: object) -> str:
    """Return a value as it may stand in a message: on one line, printable and cut where it is long."""
    return " ".join(_BRIEF.repr(value).split())


class Metadata:
    """The key-value pairs of a header. Every method takes a default, which makes the key optional.

    Attributes
    ----------
    pairs
        Integers, floats, booleans, strings, lists of strings and arrays of numbers by key.
    origin
        Name of the file, for messages.
    """

    def __init__(self, pairs: Mapping[str, Any], origin: str) -> None:
        self.pairs = pairs
        self.origin = origin

    def refuse(self, reason: str) -> ValueError:
        """Return the exception for a file that says what this conversion does not know exactly."""
        return ValueError(f"[gguf] {reason} ({self.origin})")

    def text(self, key: str, *default: str | None) -> Any:
        """Return a string."""
        return self._read(key, default, "a string", lambda value: type(value) is str)

    def flag(self, key: str, *default: bool | None) -> Any:
        """Return a truth value."""
        return self._read(key, default, "true or false", lambda value: type(value) is bool)

    def size(self, key: str, *default: int | None) -> Any:
        """Return a whole number from 1 to 2^30."""
        return self._read(
            key, default, "a whole number from 1 to 2^30", lambda value: type(value) is int and 1 <= value <= 1 << 30
        )

    def number(self, key: str, *default: float | None) -> Any:
        """Return a number as the shortest decimal that is the same float32: GGUF stores 1e-5 as 9.9999997e-06."""
        import numpy as np

        value = self._read(
            key,
            default,
            "a finite number that is not negative",
            lambda value: type(value) in (int, float) and math.isfinite(value) and 0 <= value < 1e38,
        )
        return None if value is None else float(str(np.float32(value)))

    def token_id(self, role: str, num_tokens: int) -> int | None:
        """Return the id of the token in a role, for example `bos`; None if the file names none."""
        key = f"tokenizer.ggml.{role}_token_id"
        if key not in self.pairs:
            return None
        value = self.pairs[key]
        if type(value) is not int or not 0 <= value < num_tokens:
            raise self.refuse(f"{key} is {shown(value)}, the vocabulary has {num_tokens} tokens")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of strings that holds something."""
        value = self.pairs.get(key)
        if not isinstance(value, list) or not value:
            raise self.refuse(f"{key} is missing or not a list of strings")
        return value

    def numbers(self, key: str, count: int, things: str) -> list[Any]:
        """Return a list of numbers, one for each of the tokens."""
        value = self.pairs.get(key)
        if value is None or isinstance(value, (str, int, float)) or not len(value):
            raise self.refuse(f"{key} is missing or not a list of numbers")
        if len(value) != count:
            raise self.refuse(f"{count} tokens but {len(value)} {things}")
        numbers: Sequence[Any] = value.tolist() if hasattr(value, "tolist") else value
        if any(isinstance(number, str) for number in numbers):
            raise self.refuse(f"{key} is missing or not a list of numbers")
        return list(numbers)

    def _read(self, key: str, default: tuple[Any, ...], expected: str, fits: Callable[[Any], bool]) -> Any:
        value = self.pairs.get(key)
        if value is None:
            if default:
                return default[0]
            raise self.refuse(f"{key} is missing")
        if not fits(value):
            raise self.refuse(f"{key} is {shown(value)}, expected {expected}")
        return value
