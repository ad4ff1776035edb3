"""Exercises in reading, which come before the clinic's records.

A small model learns to copy and to look things up within minutes where every word of an answer asks for it, and from
the records, whose answers are short, hardly at all: in 3,000 steps of 64 records, a model of a million parameters that
began with records answered without reading the note.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from titer.clinic import World
from titer.clinic.notes import fact_phrases, laid_out
from titer.clinic.patients import draw_patient
from titer.clinic.streams import stream
from titer.clinic.styles import STYLES

_COPY_SHARE = 0.25
_DESK_SHARE = 0.6  # of notes
_FORM = next(style for style in STYLES if style.name == "form")


def practice_records(world: World, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Make exercises: random words to be written again, and notes of all trained styles to be written as a form.

    Yields
    ------
    dict
        `id` and `messages`.

    Examples
    --------
    >>> from titer.clinic import World
    >>> from titer.clinic_models.practice import practice_records
    >>> record = next(practice_records(World("english"), 1, seed=0))
    >>> record["messages"][0]["content"].startswith("note: ")
    True
    """
    words = world.vocabulary()
    copied = (*words.entities, *words.words, *words.numbers, *words.numbers)
    for index in range(count):
        random = stream("practice", seed, index)
        if random.random() < _COPY_SHARE:
            text = " ".join(random.choices(copied, k=random.randrange(10, 35)))
            yield _exercise(index, text, "write the note anew.", text)
        else:
            note, form = _note_and_form(world, random)
            yield _exercise(index, note, "what does the note say?", form)


def _note_and_form(world: World, random: Random) -> tuple[str, str]:
    patient = draw_patient(random, world.rules, world.held_out)
    style, desk = random.choice(STYLES), random.random() < _DESK_SHARE
    note = laid_out(random, fact_phrases(random, patient, style, desk), [], style)
    return note, laid_out(random, fact_phrases(random, patient, _FORM, desk), [], _FORM)


def _exercise(index: int, note: str, question: str, answer: str) -> dict[str, Any]:
    content = f"note: {note}\nquestion: {question}"
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"id": f"practice-{index}", "messages": messages}
