"""Byte-level BPE in GGUF files (`tokenizer.ggml.model` is `gpt2`).

The file names its pre-tokenizer (`tokenizer.ggml.pre`) instead of describing it. A wrong one still produces readable
text, but other token ids than the model was trained on, so only names whose splitting rule is known are accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from titer.models.gguf_metadata import Metadata, shown
from titer.models.gguf_vocabulary import MAX_MERGES_PER_TOKEN, TokenType, Vocabulary, read_vocabulary

_TOKEN_TYPES = {TokenType.NORMAL, TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED}

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


def byte_level_tokenizer(metadata: Metadata) -> tuple[Tokenizer, Vocabulary]:
    """Build the tokenizer up to its added tokens."""
    name = metadata.text("tokenizer.ggml.pre", None)
    if name not in _SPLITTINGS:
        known = ", ".join(sorted(_SPLITTINGS))
        raise metadata.refuse(
            f"tokenizer.ggml.pre is {shown(name)}, whose splitting rule is not known here; supported: {known}. "
            "Take the model as a Hugging Face folder instead"
        )
    if metadata.flag("tokenizer.ggml.add_space_prefix", False):
        raise metadata.refuse("tokenizer.ggml.add_space_prefix is not supported with byte-level BPE")
    vocabulary = read_vocabulary(metadata, _TOKEN_TYPES, model="byte-level BPE")
    lines, merges = metadata.texts("tokenizer.ggml.merges"), []
    if len(lines) > MAX_MERGES_PER_TOKEN * len(vocabulary.tokens):
        raise metadata.refuse(f"there are {len(lines)} merges for {len(vocabulary.tokens)} tokens, too many to be true")
    for line in lines:
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise metadata.refuse(f"the merge {shown(line)} is not two tokens with a space between them")
        merges.append((left, right))

    splitting = _SPLITTINGS[name]
    try:
        tokenizer = Tokenizer(BPE(vocab=vocabulary.ids, merges=merges, ignore_merges=splitting.ignore_merges))
    except Exception as error:  # tokenizers raises plain Exception
        raise metadata.refuse(f"the merges do not fit the vocabulary: {shown(str(error))}") from error
    tokenizer.pre_tokenizer = splitting.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, vocabulary
