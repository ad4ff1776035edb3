"""The vocabulary in a GGUF file: tokens in the order of their ids, and what kind each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens as the file spells them, and the type of each."""

    tokens: list[str]
    types: list[int]

    @property
    def ids(self) -> dict[str, int]:
        """The id of each token."""
        return {token: index for index, token in enumerate(self.tokens)}

    def of_type(self, kind: TokenType) -> list[str]:
        """Return the tokens of one type, in the order of their ids."""
        return [token for token, type_ in zip(self.tokens, self.types, strict=True) if type_ == kind]


def read_vocabulary(metadata: Mapping[str, Any], allowed: Set[TokenType], *, model: str, origin: str) -> Vocabulary:
    """Read a vocabulary that holds no token twice and only tokens of the allowed types; `model` is for messages."""
    tokens = read_list(metadata, "tokenizer.ggml.tokens", origin=origin)
    types = read_list(metadata, "tokenizer.ggml.token_type", origin=origin)
    if len(types) != len(tokens):
        raise ValueError(f"[gguf] {len(tokens)} tokens but {len(types)} token types ({origin})")
    if repeated := len(tokens) - len(set(tokens)):
        raise ValueError(f"[gguf] {repeated} tokens occur twice in the vocabulary ({origin})")
    if unknown := sorted(set(types) - allowed):
        raise ValueError(f"[gguf] token types {unknown} are not supported with {model} ({origin})")
    return Vocabulary(tokens, types)


def read_list(metadata: Mapping[str, Any], key: str, *, origin: str) -> list[Any]:
    """Return a list of the header that must be there and hold something."""
    value = metadata.get(key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"[gguf] {key} is missing ({origin})")
    return value
