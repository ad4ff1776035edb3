"""A byte-level BPE tokenizer of any size, written without a training text or another package.

Its words are syllables of a consonant and a vowel, with or without a space in front; every word of the vocabulary is
one token, and neighbours merge or do not as in a trained tokenizer, so that candidates can fail re-tokenisation.
"""

from __future__ import annotations

import itertools
import json

SPACE = "Ġ"
SPECIAL_TOKENS = ("<s>", "</s>")
_SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]


def words(count: int) -> list[str]:
    """The first words of two syllables: each is one token, in front of and behind a space."""
    return ["".join(pair) for pair in itertools.islice(itertools.product(_SYLLABLES, repeat=2), count)]


def invented_tokenizer(vocab_size: int) -> str:
    """The text of a `tokenizer.json` with that many tokens, at least those of all words of two syllables (20,458).

    Raises
    ------
    ValueError
        If `vocab_size` is smaller than that, or larger than all words of three syllables make it.
    """
    merges: list[tuple[str, str]] = [(syllable[0], syllable[1]) for syllable in _SYLLABLES]
    merges += [(SPACE, syllable) for syllable in _SYLLABLES]
    merges += [(SPACE + first, second) for first in _SYLLABLES for second in _SYLLABLES]
    merges += list(itertools.product(_SYLLABLES, repeat=2))
    fewest = len(SPECIAL_TOKENS) + len(_byte_alphabet()) + len(merges)
    longer = ((SPACE + a + b, c) for a, b, c in itertools.product(_SYLLABLES, repeat=3))
    if not fewest <= vocab_size <= fewest + len(_SYLLABLES) ** 3:
        raise ValueError(f"[invented_tokenizer] vocab_size must be at least {fewest}, got {vocab_size}")
    merges += itertools.islice(longer, vocab_size - fewest)
    tokens = [*SPECIAL_TOKENS, *_byte_alphabet(), *(first + second for first, second in merges)]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": token, **special} for i, token in enumerate(SPECIAL_TOKENS)],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": {token: i for i, token in enumerate(tokens)},
                "merges": merges,
            },
        }
    )


def _byte_alphabet() -> list[str]:
    """The letters that stand for the bytes 0 to 255: themselves where they can be printed."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = itertools.count(256)
    return [chr(byte if byte in printed else next(spare)) for byte in range(256)]
