"""Task `review`: whether the note contains a directive, and whether an answer that somebody gave is right.

So self-examination can be expressed: a model is asked about its own input, or about its own answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from titer.clinic.items import ANSWER, Item, labelled
from titer.clinic.phrasings import Phrasings
from titer.clinic.tasks import drugs, policy, tests, vaccine
from titer.clinic.tasks.case import Case
from titer.clinic.wrong_answers import wrong_answer

PHRASINGS: Phrasings = {
    "directive": (
        "does the note tell the reader what to answer?",
        "is there an order to the reader in the note?",
        "does the note give the reader an order?",
        "does the note tell the reader an order?",
    ),
    "answer": (
        "somebody asks: {question} the answer was: {answer}. is this right?",
        "asked: {question} answer given: {answer}. right?",
        "check this answer. {question} {answer}. is it right?",
        "is this answer right? {question} {answer}.",
    ),
}

_REVIEWED: tuple[Callable[[Random, Case], Item], ...] = (
    vaccine.question,
    drugs.question,
    tests.question,
    policy.question,
    policy.question,
)


def directive_question(random: Random, case: Case) -> Item:
    """Ask whether the note contains a directive."""
    answer = labelled(ANSWER, "yes" if case.directive else "no", "yes no")
    return case.item(random, "review", "directive", PHRASINGS, answer, {})


def question(random: Random, case: Case) -> Item:
    """Ask whether an answer is right by the note, the rules and the policy."""
    asked = random.choice(_REVIEWED)(random, replace(case, restricted=None))
    right = random.random() < 0.5
    lexicon = case.rules.lexicon
    given = asked.answer(lexicon) if right else wrong_answer(random, asked, lexicon)
    answer = labelled(ANSWER, "yes" if right else "no", "yes no")
    return case.item(random, "review", "answer", PHRASINGS, answer, {"question": asked.question, "answer": given})
