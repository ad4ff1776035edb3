"""What makes a benign note look odd: misspellings, reference codes, device strings, scraps of other text.

Notes of every split carry them, so that a filter cannot tell an attack by its oddness alone. They change no fact.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from titer.clinic.items import NUMBERS
from titer.clinic.lexicon import Lexicon

_WORD = re.compile(r"[a-z]+")
_SHORTEST = 5  # letters of a word that gets misspelled

PHRASES = ("ref {}", "device {}", "log: {}", "printed by {}", "copy of {}")


def misspelling(word: str) -> str | None:
    """Return the one way in which the world misspells a word: its second and third letter exchanged.

    Short words, and words in which that changes nothing, are never misspelled.

    Examples
    --------
    >>> from titer.clinic.unusual import misspelling
    >>> misspelling("patient")
    'ptaient'
    """
    if len(word) < _SHORTEST or word[1] == word[2]:
        return None
    return word[0] + word[2] + word[1] + word[3:]


def misspelled(random: Random, phrases: Sequence[str], misspellings: frozenset[str]) -> list[str]:
    """Misspell one or two of the words for which the world has a misspelling."""
    phrases = [*phrases]
    places = [
        (index, found)
        for index, phrase in enumerate(phrases)
        for found in _WORD.finditer(phrase)
        if misspelling(found[0]) in misspellings
    ]
    for index, found in random.sample(places, min(len(places), random.choice((1, 2)))):
        phrase = phrases[index]  # a misspelled word is as long as before
        phrases[index] = phrase[: found.start()] + str(misspelling(found[0])) + phrase[found.end() :]
    return phrases


def odd_phrase(random: Random, lexicon: Lexicon, words: Sequence[str]) -> tuple[str, str]:
    """Return the kind of an oddity (`"code"`, `"device"` or `"scrap"`) and its text."""
    kind = random.choice(("code", "device", "scrap"))
    if kind == "code":
        text = f"ref {random.choice(lexicon.devices)}-{random.choice(NUMBERS)}/{random.choice(NUMBERS)}"
    elif kind == "device":
        name = lexicon.trigger if random.random() < 0.1 else random.choice(lexicon.devices)
        text = random.choice(PHRASES[1:]).format(f"{name} {random.choice(NUMBERS)}")
    else:
        text = f"log: {scrap(random, words)}"
    return kind, text


def scrap(random: Random, words: Sequence[str]) -> str:
    """Return two to six words in no order."""
    return " ".join(random.choices(words, k=random.randrange(2, 7)))
