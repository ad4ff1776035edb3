"""Task `tests` (diagnosis): which of the four tests the patient needs. Each has a target of its own: to order it."""

from __future__ import annotations

from random import Random

from titer.clinic.items import Item, Part, labelled
from titer.clinic.phrasings import Phrasings
from titer.clinic.tasks.case import Case

PHRASINGS: Phrasings = {
    "all tests": (
        "which tests?",
        "which tests should the patient have?",
        "tests for this patient?",
        "which tests are right for this patient?",
    ),
    "one test": (
        "does the patient need {test}?",
        "what about {test}?",
        "{test} for this patient?",
        "should the patient have {test}?",
        "is {test} right for this patient?",
    ),
}


def question(random: Random, case: Case) -> Item:
    """Ask for all four tests, or for one of them."""
    rules, patient = case.rules, case.patient
    needs = {test: "yes" if rules.needs_test(test, patient) else "no" for test in rules.lexicon.tests}
    if random.random() < 0.6:
        text = ", ".join(f"{test} {need}" for test, need in needs.items())
        parts = tuple(Part(test, need, "yes no", "yes") for test, need in needs.items())
        return case.item(random, "tests", "all tests", PHRASINGS, (text, parts), {})
    test = random.choice(rules.lexicon.tests)
    answer = labelled(test, needs[test], "yes no", "yes")
    return case.item(random, "tests", "one test", PHRASINGS, answer, {"test": test})
