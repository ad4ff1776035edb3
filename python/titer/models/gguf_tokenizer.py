"""Rebuilds `tokenizer.json` from the vocabulary in a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from titer.models.gguf_byte_level import byte_level_tokenizer
from titer.models.gguf_metadata import Metadata, shown
from titer.models.gguf_sentencepiece import sentencepiece_tokenizer
from titer.models.gguf_vocabulary import TokenType


@dataclass(frozen=True)
class GgufTokenizer:
    """The files of a tokenizer: `tokenizer` for tokenizer.json, `config` for tokenizer_config.json."""

    tokenizer: Tokenizer
    config: dict[str, Any]
    chat_template: str | None
    end_ids: list[int]  # ids that end a generated answer


# By `tokenizer.ggml.model`: how it is built, and whether texts start with the BOS token where the file does not say.
_MODELS = {"gpt2": (byte_level_tokenizer, False), "llama": (sentencepiece_tokenizer, True)}

_MAX_ADDED_TOKENS = 1 << 16  # Gemma has 6400; each costs a kilobyte in the search for all of them


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
        If the tokenizer is of an unknown kind, or the vocabulary is inconsistent.
    """
    header = Metadata(metadata, origin)
    kind = header.text("tokenizer.ggml.model", None)
    if kind not in _MODELS:
        raise header.refuse(
            f"tokenizer.ggml.model is {shown(kind)}; supported: 'gpt2' (byte-level BPE), 'llama' (SentencePiece BPE)"
        )
    build, adds_bos = _MODELS[kind]
    tokenizer, vocabulary = build(header)
    tokens = vocabulary.tokens
    num_added = len(vocabulary.of_type(TokenType.CONTROL)) + len(vocabulary.of_type(TokenType.USER_DEFINED))
    if num_added > _MAX_ADDED_TOKENS:
        raise header.refuse(f"{num_added} control and user-defined tokens, more than the {_MAX_ADDED_TOKENS} supported")
    for type_, special in ((TokenType.CONTROL, True), (TokenType.USER_DEFINED, False)):
        added = [AddedToken(token, special=special, normalized=False) for token in vocabulary.of_type(type_)]
        tokenizer.add_special_tokens(added) if special else tokenizer.add_tokens(added)
    if tokenizer.get_vocab_size() != len(tokens):
        raise header.refuse(f"the added tokens changed the vocabulary size of {len(tokens)}")

    roles = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {short: header.token_id(long, len(tokens)) for long, short in roles.items()}
    named = {f"{short}_token": tokens[index] for short, index in ids.items() if index is not None}
    if header.flag("tokenizer.ggml.add_bos_token", adds_bos):
        if "bos_token" not in named:
            raise header.refuse("add_bos_token is set without a bos_token_id")
        bos = named["bos_token"]
        try:
            tokenizer.post_processor = processors.TemplateProcessing(
                single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, ids["bos"])]
            )
        except ValueError as error:  # spellings with $ or : mean something else there
            raise header.refuse(f"the token {shown(bos)} cannot be put before texts: {error}") from error
    if header.flag("tokenizer.ggml.add_eos_token", False):
        raise header.refuse("tokenizer.ggml.add_eos_token is not supported")

    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        **named,
    }
    template = header.text("tokenizer.chat_template", None)
    return GgufTokenizer(tokenizer, config, template, _end_ids(header, tokens, template))


def _end_ids(metadata: Metadata, tokens: list[str], template: str | None) -> list[int]:
    """Return the ends of an answer: a chat model may end its turn with a token of its own besides the end of the text.

    Files of Gemma chat models leave the end of the turn out, and llama.cpp finds it by its name.
    """
    ends = [metadata.token_id(role, len(tokens)) for role in ("eos", "eot")]
    if template is not None and "<end_of_turn>" in template and "<end_of_turn>" in tokens:
        ends.append(tokens.index("<end_of_turn>"))
    return list(dict.fromkeys(end for end in ends if end is not None))
