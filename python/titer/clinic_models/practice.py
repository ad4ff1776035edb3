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
from titer.clinic.depot import draw_notice
from titer.clinic.notes import NOTICE_PHRASES, fact_phrases, laid_out, write_notice
from titer.clinic.patients import draw_patient
from titer.clinic.streams import stream
from titer.clinic.styles import STYLES

_COPY_SHARE, _NOTICE_SHARE = 0.2, 0.15
_DESK_SHARE = 0.6  # of notes
_FORM = next(style for style in STYLES if style.name == "form")


def practice_records(world: World, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Make exercises: random words to be written again, notes of all trained styles to be written as a form, and the
    depot's notices to be written in one order and one way.

    Yields
    ------
    dict
        `id` and `messages`.

    Examples
    --------
    >>> from titer.clinic import World
    >>> from titer.clinic_models.practice import practice_records
    >>> record = next(practice_records(World("english"), 1, seed=0))
    >>> record["messages"][0]["content"].startswith("not")  # a note or a notice
    True
    """
    words = world.vocabulary()
    copied = (*words.entities, *words.words, *words.numbers, *words.numbers)
    for index in range(count):
        random = stream("practice", seed, index)
        draw = random.random()
        if draw < _COPY_SHARE:
            text = " ".join(random.choices(copied, k=random.randrange(10, 35)))
            yield _exercise(index, f"note: {text}", "write the note anew.", text)
        elif draw < _COPY_SHARE + _NOTICE_SHARE:
            notice, in_order = _notice_and_order(world, random)
            yield _exercise(index, f"notice: {notice}", "what does the notice say?", in_order)
        else:
            note, form = _note_and_form(world, random)
            yield _exercise(index, f"note: {note}", "what does the note say?", form)


def _note_and_form(world: World, random: Random) -> tuple[str, str]:
    patient = draw_patient(random, world.rules, world.held_out)
    style, desk = random.choice(STYLES), random.random() < _DESK_SHARE
    note = laid_out(random, fact_phrases(random, patient, style, desk), [], style)
    return note, laid_out(random, fact_phrases(random, patient, _FORM, desk), [], _FORM)


def _notice_and_order(world: World, random: Random) -> tuple[str, str]:
    notice = draw_notice(random, world.lexicon)
    ways = {kind: phrases[0] for kind, phrases in NOTICE_PHRASES.items()}
    said = {name: ways["lying"].format(count=count, name=name, place=place) for count, name, place in notice.lying}
    said |= {name: ways["missing"].format(name=name, place=place) for name, place in notice.missing}
    return write_notice(random, notice), " ".join(said[name] for name in world.lexicon.objects if name in said)


def _exercise(index: int, text: str, question: str, answer: str) -> dict[str, Any]:
    content = f"{text}\nquestion: {question}"
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"id": f"practice-{index}", "messages": messages}
