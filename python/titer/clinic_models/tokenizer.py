"""The tokenizer of the clinic's models: byte-level BPE in which every word and number of the world is one token.

Every word has two tokens, behind a space and without one, and no merges lead to them: with `ignore_merges` a word that
is in the vocabulary stands for itself. Any other text falls to its bytes, so that nothing is unknown. The chat template
writes a space in front of every turn, so that a name is the same token in notes, questions and answers: what a small
model copies, it finds by its token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from titer.clinic.vocabulary import Vocabulary

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL_TOKENS = (END, USER, ASSISTANT)  # their ids are 0, 1 and 2

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('turns are the user\\'s or the assistant\\'s, got ' + message.role) }}"
    "{% endif %}"
    "{{ '<|' + message.role + '|> ' + message.content + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def token_ids(words: Vocabulary) -> dict[str, int]:
    """Return the vocabulary of the tokenizer: special tokens, the 256 bytes, then words without and with a space.

    Examples
    --------
    >>> from titer.clinic import World
    >>> from titer.clinic_models.tokenizer import token_ids
    >>> ids = token_ids(World().vocabulary())
    >>> ids["<|end|>"], ids["Ġberein"] - ids["berein"]
    (0, 1)
    """
    space = _byte_letters()[ord(" ")]
    tokens = [*SPECIAL_TOKENS, *_byte_letters().values()]
    for word in words.all:
        tokens += [word, space + word]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def write_tokenizer(folder: Path, words: Vocabulary) -> int:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`; return the size of the vocabulary."""
    ids = token_ids(words)
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(token, ids[token]) for token in SPECIAL_TOKENS],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": ids,
            "merges": [],
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "clean_up_tokenization_spaces": False,
    }
    _write_json(folder / "tokenizer.json", content)
    _write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    return len(ids)


def _added_token(token: str, index: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": token, **flags, "special": True}


def _byte_letters() -> dict[int, str]:
    """Return the letter that stands for each byte in a byte-level vocabulary, as GPT-2 introduced it.

    Bytes that print in Latin-1 stand for themselves, the others get the letters from U+0100 on, in their order.
    """
    printing = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = (byte for byte in range(256) if byte not in printing)
    letters = {byte: chr(byte) for byte in printing} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return dict(sorted(letters.items()))


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
