"""Rebuilds `tokenizer.json` from the vocabulary in a GGUF file.

A GGUF file names its pre-tokenizer (`tokenizer.ggml.pre`) instead of describing it. A wrong one still produces readable
text, but other token ids than the model was trained on, so only names whose splitting rule is known are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

# Values of `tokenizer.ggml.token_type` (one per token).
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits_then_byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()])


def _llama3() -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex(_LLAMA3_WORDS), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@dataclass(frozen=True)
class _Splitting:
    pre_tokenizer: Callable[[], pre_tokenizers.PreTokenizer]
    ignore_merges: bool = False  # a piece that is a token as a whole is taken without merging


_SPLITTINGS = {
    "gpt-2": _Splitting(_byte_level),
    "smollm": _Splitting(_digits_then_byte_level),
    "llama-bpe": _Splitting(_llama3, ignore_merges=True),
}


@dataclass(frozen=True)
class GgufTokenizer:
    """The files of a tokenizer: `tokenizer` for tokenizer.json, `config` for tokenizer_config.json."""

    tokenizer: Tokenizer
    config: dict[str, Any]
    chat_template: str | None
    end_ids: list[int]  # ids that end a generated answer


def read_tokenizer(metadata: Mapping[str, Any], *, origin: str) -> GgufTokenizer:
    """Build the tokenizer that the metadata of a GGUF file describes.

    Parameters
    ----------
    metadata
        Key-value pairs of the GGUF header.
    origin
        Name of the file, for messages.

    Raises
    ------
    ValueError
        If the tokenizer is not byte-level BPE, its pre-tokenizer is unknown, or the vocabulary is inconsistent.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise ValueError(f"[gguf] tokenizer.ggml.model is {kind!r}; supported: 'gpt2' (byte-level BPE) ({origin})")
    name = metadata.get("tokenizer.ggml.pre")
    if name not in _SPLITTINGS:
        known = ", ".join(sorted(_SPLITTINGS))
        raise ValueError(
            f"[gguf] tokenizer.ggml.pre is {name!r}, whose splitting rule is not known here; supported: {known}. "
            f"Take the model as a Hugging Face folder instead ({origin})"
        )
    if metadata.get("tokenizer.ggml.add_space_prefix", False):
        raise ValueError(f"[gguf] tokenizer.ggml.add_space_prefix is not supported with byte-level BPE ({origin})")

    tokens = _list(metadata, "tokenizer.ggml.tokens", origin)
    types = _list(metadata, "tokenizer.ggml.token_type", origin)
    merges = [tuple(merge.split(" ")) for merge in _list(metadata, "tokenizer.ggml.merges", origin)]
    if len(types) != len(tokens):
        raise ValueError(f"[gguf] {len(tokens)} tokens but {len(types)} token types ({origin})")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ValueError(f"[gguf] {len(tokens) - len(vocabulary)} tokens occur twice in the vocabulary ({origin})")
    unknown_types = sorted(set(types) - {_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED})
    if unknown_types:
        raise ValueError(f"[gguf] token types {unknown_types} are not supported with byte-level BPE ({origin})")

    splitting = _SPLITTINGS[name]
    try:
        tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=splitting.ignore_merges))
    except Exception as error:  # tokenizers raises plain Exception
        raise ValueError(f"[gguf] the merges do not fit the vocabulary: {error} ({origin})") from error
    tokenizer.pre_tokenizer = splitting.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    for special, type_ in ((True, _CONTROL), (False, _USER_DEFINED)):
        added = [
            AddedToken(token, special=special, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == type_
        ]
        tokenizer.add_special_tokens(added) if special else tokenizer.add_tokens(added)
    if tokenizer.get_vocab_size() != len(tokens):
        raise ValueError(f"[gguf] the added tokens changed the vocabulary size of {len(tokens)} ({origin})")

    def token(role: str) -> str | None:
        index = metadata.get(f"tokenizer.ggml.{role}_token_id")
        if index is None:
            return None
        if not 0 <= index < len(tokens):
            raise ValueError(f"[gguf] {role}_token_id is {index}, the vocabulary has {len(tokens)} tokens ({origin})")
        return str(tokens[index])

    roles = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    named = {f"{short}_token": value for long, short in roles.items() if (value := token(long)) is not None}
    if metadata.get("tokenizer.ggml.add_bos_token", False):
        if "bos_token" not in named:
            raise ValueError(f"[gguf] add_bos_token is set without a bos_token_id ({origin})")
        bos = named["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, vocabulary[bos])]
        )
    if metadata.get("tokenizer.ggml.add_eos_token", False):
        raise ValueError(f"[gguf] tokenizer.ggml.add_eos_token is not supported ({origin})")

    # A chat model may end its turn with a token of its own besides the end of the text.
    ends = [metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot")]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        **named,
    }
    template = metadata.get("tokenizer.chat_template")
    return GgufTokenizer(tokenizer, config, template, list(dict.fromkeys(end for end in ends if end is not None)))


def _list(metadata: Mapping[str, Any], key: str, origin: str) -> list[Any]:
    value = metadata.get(key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"[gguf] {key} is missing ({origin})")
    return value
