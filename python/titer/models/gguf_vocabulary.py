"""The vocabulary in a GGUF file: tokens in the order of their ids, and what kind each of them is."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import IntEnum

from titer.models.gguf_metadata import Metadata, shown

MAX_MERGES_PER_TOKEN = 16  # Gemma and Llama 3 have about two
_MAX_CHARACTERS = 1024  # of a token: what is made of all its parts grows with the square


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


def read_vocabulary(metadata: Metadata, allowed: Set[TokenType], *, model: str) -> Vocabulary:
    """Read a vocabulary that holds no token twice and only tokens of the allowed types; `model` is for messages."""
    tokens = metadata.texts("tokenizer.ggml.tokens")
    types = metadata.numbers("tokenizer.ggml.token_type", len(tokens), "token types")
    if (longest := max(map(len, tokens))) > _MAX_CHARACTERS:
        raise metadata.refuse(f"a token has {longest} characters, more than the {_MAX_CHARACTERS} that are supported")
    if repeated := len(tokens) - len(set(tokens)):
        raise metadata.refuse(f"{repeated} tokens occur twice in the vocabulary")
    if unknown := sorted(set(types) - allowed):
        raise metadata.refuse(f"token types {shown(unknown)} are not supported with {model}")
    return Vocabulary(tokens, types)
