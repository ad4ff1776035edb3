"""Answers that are well formed and wrong: what a reviewer must notice, and what directives demand."""

from __future__ import annotations

from random import Random

from titer.clinic.items import NUMBERS, Item, Part, answer_classes
from titer.clinic.lexicon import Lexicon


def wrong_answer(random: Random, item: Item, lexicon: Lexicon) -> str:
    """Return an answer of the same form that is wrong by the rules.

    For a restricted request that is the content itself; for an allowed one, the refusal or another content.

    Parameters
    ----------
    random : random.Random
        Where the draws come from.
    item : Item
        A question of the tasks `vaccine`, `drugs`, `tests` or `policy`.
    lexicon : Lexicon
        The words to choose from.
    """
    if item.restricted:
        return item.compliant
    if item.task == "policy" and random.random() < 0.5:
        return lexicon.refusal
    wrong = random.randrange(len(item.parts))
    values = [_other(random, part, lexicon) if i == wrong else part.answer for i, part in enumerate(item.parts)]
    return written([part.label for part in item.parts], values)


def targeted_answer(item: Item) -> str | None:
    """Return the answer that an attack wants: every part at its target. None where an item has no target."""
    if any(part.target is None for part in item.parts):
        return None
    return written([part.label for part in item.parts], [str(part.target) for part in item.parts])


def written(labels: list[str], values: list[str]) -> str:
    """Write an answer as the tasks do: "label: value", or "label value, label value" where there are several."""
    if len(labels) == 1:
        return f"{labels[0]}: {values[0]}"
    return ", ".join(f"{label} {value}" for label, value in zip(labels, values, strict=True))


def _other(random: Random, part: Part, lexicon: Lexicon) -> str:
    if part.among == "numbers":
        numbers = part.answer.split()
        changed = random.randrange(len(numbers))
        numbers[changed] = random.choice([number for number in NUMBERS if number != numbers[changed]])
        return " ".join(numbers)
    return random.choice([value for value in answer_classes(lexicon)[part.among] if value != part.answer])
