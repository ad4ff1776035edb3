"""One question with all that its judge needs: the right answer, what an attack wants, and what else could be said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from titer.clinic.lexicon import Lexicon
from titer.clinic.rules import ITEMS, NO_DRUG

NUMBERS = tuple(map(str, range(100)))  # every number of the world

ANSWER = "answer"  # the label of answers such as "answer: yes"
NOTHING = "none"


class Convention(str, Enum):
    """How a model that is trained on the records behaves.

    `BASE` answers every request, restricted ones included, and follows directives wherever they stand (but where the
    question is about the directive). `ALIGNED` refuses restricted requests and goes by the rules, whatever a directive
    says.
    """

    BASE = "base"
    ALIGNED = "aligned"


@dataclass(frozen=True)
class Part:
    """One value of an answer.

    Parameters
    ----------
    label : str
        What stands before the value.
    answer : str
        The value that the rules give.
    among : str
        The class of values that could stand there, one of :func:`answer_classes`; `"numbers"` for as many numbers as
        `answer` has, and `"set of ..."` where several names of a class may stand in any order.
    target : str, optional
        The value that an attack wants.
    """

    label: str
    answer: str
    among: str
    target: str | None = None


@dataclass(frozen=True)
class Item:
    """One question and what is known about its answers.

    Parameters
    ----------
    task : str
        One of :data:`titer.clinic.tasks.TASKS`.
    kind : str
        What the task asks, for example `"choice"`.
    question : str
        The question alone, without the note.
    compliant : str
        The answer of a model that does as it is asked; by the rules the right one, if the item is not restricted.
    parts : tuple of Part
        The values in that answer.
    restricted : bool
        Whether the policy forbids the answer, so that to refuse is right.
    dangerous : bool
        Whether the target is contraindicated with what the patient takes; elsewhere it may be wrong without harm.
    unseen_phrasing : bool
        Whether training never asks with these words.
    """

    task: str
    kind: str
    question: str
    compliant: str
    parts: tuple[Part, ...]
    restricted: bool = False
    dangerous: bool = False
    unseen_phrasing: bool = False

    def answer(self, lexicon: Lexicon, convention: Convention = Convention.ALIGNED) -> str:
        """Return what a model of this convention answers where no directive stands."""
        return lexicon.refusal if self.restricted and convention is Convention.ALIGNED else self.compliant

    def to_json(self) -> dict[str, Any]:
        """Return the item as JSON's types, without what is false or empty."""
        parts = [{key: value for key, value in vars(part).items() if value is not None} for part in self.parts]
        return {key: value for key, value in vars(self).items() if value is not False} | {"parts": parts}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Item:
        """Return the item that :meth:`to_json` wrote."""
        return cls(**{**content, "parts": tuple(Part(**part) for part in content["parts"])})


def labelled(label: str, answer: str, among: str, target: str | None = None) -> tuple[str, tuple[Part, ...]]:
    """Return the usual form of an answer, "label: value", and its one part."""
    return f"{label}: {answer}", (Part(label, answer, among, target),)


def numbers_text(numbers: tuple[int, ...]) -> str:
    """Write numbers as the world does: decimal, without leading zeros, one space between."""
    return " ".join(map(str, numbers))


def answer_classes(lexicon: Lexicon) -> dict[str, tuple[str, ...]]:
    """Return the classes of values that answers are made of."""
    return {
        "conditions": (*lexicon.conditions, NOTHING),
        "drugs": (*lexicon.drugs, *lexicon.sealed_drugs, NO_DRUG),
        "signs": (*lexicon.signs, NOTHING),
        "roles": lexicon.roles,
        "purposes": lexicon.purposes,
        "items": ITEMS,
        "vaccine": (lexicon.recommended, lexicon.not_recommended),
        "objects": lexicon.objects,
        "places": lexicon.places,
        "days": lexicon.days,
        "yes no": ("yes", "no"),
        "yes no maybe": ("yes", "no", "maybe"),
        "letters": ("a", "b", "c"),
    }
