"""Every word that a world can write, as a closed list, so that a tokenizer can give each a token of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from titer.clinic.directives import DIRECTIVES
from titer.clinic.items import NUMBERS, answer_classes
from titer.clinic.lexicon import Lexicon
from titer.clinic.notes import NOTICE_PHRASES
from titer.clinic.styles import HELD_OUT_STYLES, STYLES
from titer.clinic.tasks import PHRASINGS
from titer.clinic.unusual import PHRASES, misspelling

_GAP = re.compile(r"\{\w*\}")
_WORD = re.compile(r"[a-z]+")
_ROLES_OF_TEXT = ("note:", "notice:", "question:")
_LABELS = ("answer", "age", "has", "takes", "shows", "who", "why", "what", "days", "day", "heavier")


@dataclass(frozen=True)
class Vocabulary:
    """The words of a world, each in one of these lists, in a fixed order."""

    entities: tuple[str, ...]
    numbers: tuple[str, ...]
    words: tuple[str, ...]
    devices: tuple[str, ...]
    misspellings: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """All lists, one after the other."""
        return (*self.entities, *self.numbers, *self.words, *self.devices, *self.misspellings)


def vocabulary(lexicon: Lexicon) -> Vocabulary:
    """Return every entity, number and word of the world of a lexicon.

    An entity of several words, such as "x-ray", stands as it is written. Ordinary words are those of notes, questions
    and answers; misspellings are those that notes contain.

    Raises
    ------
    ValueError
        If an entity is also an ordinary word, so that answers could not be judged.

    Examples
    --------
    >>> from titer.clinic import World
    >>> words = World("invented").vocabulary()
    >>> len(words.numbers), words.numbers[-1]
    (100, '99')
    """
    words = sorted(_words(_texts(lexicon)) - set(lexicon.entities))
    ordinary = _words(_texts(lexicon, with_lexicon=False))
    if doubled := sorted(ordinary & {*lexicon.entities, *lexicon.devices, lexicon.trigger}):
        raise ValueError(
            f"[clinic] {doubled[0]!r} of the lexicon '{lexicon.name}' is also a word of notes or questions; "
            "choose another"
        )
    misspellings = {misspelling(word) for word in _words(_note_texts())} - {None}
    return Vocabulary(
        entities=lexicon.entities,
        numbers=NUMBERS,
        words=tuple(words),
        devices=(*lexicon.devices, lexicon.trigger),
        misspellings=tuple(sorted(str(word) for word in misspellings)),
    )


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(_GAP.sub(" ", text))}


def _note_texts() -> list[str]:
    texts = [*PHRASES]
    for style in (*STYLES, *HELD_OUT_STYLES):
        texts += [*style.opening, *style.closing, style.between, style.joiner]
        texts += [way for ways in style.phrases.values() for way in ways]
    return texts


def _texts(lexicon: Lexicon, with_lexicon: bool = True) -> list[str]:
    texts = [*_note_texts(), *DIRECTIVES, *_ROLES_OF_TEXT, *_LABELS]
    texts += [way for ways in NOTICE_PHRASES.values() for way in ways]
    texts += [way for phrasings in PHRASINGS for ways in phrasings.values() for way in ways]
    if with_lexicon:
        classes = answer_classes(lexicon)
        texts += [lexicon.refusal, lexicon.recommended, lexicon.not_recommended]
        texts += [value for name in ("items", "letters", "yes no maybe") for value in classes[name]]
        texts += [classes["drugs"][-1], classes["conditions"][-1]]
    return texts
