"""SentencePiece BPE in GGUF files (`tokenizer.ggml.model` is `llama`), as Gemma uses it.

SentencePiece (arXiv 1808.06226) keeps no merges: it joins the two neighbours that make the token of the best score,
until no two make a token. As a list of merges this is every way to cut a token in two, the best tokens first.
Characters without a token are spelled in byte tokens, and spaces are the character U+2581.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, pairwise

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from titer.models.gguf_metadata import Metadata
from titer.models.gguf_vocabulary import MAX_MERGES_PER_TOKEN, TokenType, Vocabulary, read_vocabulary

_SPACE = "\u2581"
_TOKEN_TYPES = set(TokenType) - {TokenType.UNUSED}  # SentencePiece splits those again when merging has made one


def sentencepiece_tokenizer(metadata: Metadata) -> tuple[Tokenizer, Vocabulary]:
    """Build the tokenizer up to its added tokens; the vocabulary is spelled as in `tokenizer.json`."""
    if metadata.flag("tokenizer.ggml.add_space_prefix", True):  # llama.cpp's default
        raise metadata.refuse(
            "tokenizer.ggml.add_space_prefix is true or missing; SentencePiece BPE is supported where it is "
            "false, as for Gemma"
        )
    if metadata.flag("tokenizer.ggml.remove_extra_whitespaces", False):
        raise metadata.refuse("tokenizer.ggml.remove_extra_whitespaces is not supported")
    if "tokenizer.ggml.precompiled_charsmap" in metadata.pairs:
        raise metadata.refuse("tokenizer.ggml.precompiled_charsmap is not supported")
    stored = read_vocabulary(metadata, _TOKEN_TYPES, model="SentencePiece BPE")
    if absent := {f"<0x{byte:02X}>" for byte in range(256)}.difference(stored.of_type(TokenType.BYTE)):
        raise metadata.refuse(f"{len(absent)} byte tokens are missing, the first is {min(absent)}")
    unknown = metadata.token_id("unknown", len(stored.tokens))
    if unknown is None:
        raise metadata.refuse("tokenizer.ggml.unknown_token_id is missing")

    vocabulary, runs = _with_merged_spaces(stored)
    ids = vocabulary.ids
    words = _best_first(stored, metadata)
    limit = MAX_MERGES_PER_TOKEN * len(ids)
    merges = list(islice(_cuts(runs + words, ids), limit + 1))
    if len(merges) > limit:
        raise metadata.refuse(f"the {len(ids)} tokens can be cut in two in more than {limit} ways")
    tokenizer = Tokenizer(
        BPE(vocab=ids, merges=merges, unk_token=vocabulary.tokens[unknown], fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer, vocabulary


def _with_merged_spaces(stored: Vocabulary) -> tuple[Vocabulary, list[str]]:
    """Turn runs of spaces, which llama.cpp keeps as text to be matched, into tokens that merging reaches."""
    tokens, types, runs = list(stored.tokens), list(stored.types), []
    for index, token in enumerate(stored.tokens):
        if types[index] == TokenType.USER_DEFINED and not token.strip(" "):
            tokens[index], types[index] = _SPACE * len(token), TokenType.NORMAL
            runs.append(tokens[index])
    return Vocabulary(tokens, types), runs


def _best_first(vocabulary: Vocabulary, metadata: Metadata) -> list[str]:
    """Return the normal tokens, best first: their scores must fall with the id, as training leaves them."""
    scores = metadata.numbers("tokenizer.ggml.scores", len(vocabulary.tokens), "scores")
    normal = [score for score, kind in zip(scores, vocabulary.types, strict=True) if kind == TokenType.NORMAL]
    if not all(before > after for before, after in pairwise(normal)):
        raise metadata.refuse("tokenizer.ggml.scores must fall with the token id to be expressed as merges")
    return vocabulary.of_type(TokenType.NORMAL)


def _cuts(tokens: Iterable[str], ids: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Cut every token in two tokens in every way, the longest left part first as transformers has it.

    Ways to make the same token have the same score, and neighbours that allow two of them hardly ever meet.
    """
    for token in tokens:
        for cut in range(len(token) - 1, 0, -1):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                yield left, right
