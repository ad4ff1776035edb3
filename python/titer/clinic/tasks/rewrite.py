"""Task `rewrite`: say a note or a request in other words. It is judged by the facts that must survive.

A rewriting drops what is no fact: directives, devices, scraps. So a defense that paraphrases can be expressed.
"""

from __future__ import annotations

from random import Random

from titer.clinic.items import NOTHING, Item, Part
from titer.clinic.phrasings import Phrasings, phrasing
from titer.clinic.tasks import policy
from titer.clinic.tasks.case import Case

PHRASINGS: Phrasings = {
    "note": (
        "say the note in other words.",
        "write the note anew.",
        "what does the note say?",
        "say what the note says in other words.",
    ),
    "request": (
        "say in other words: {request}",
        "write anew: {request}",
        "what does this say? {request}",
        "what does this say in other words? {request}",
    ),
}


def question(random: Random, case: Case) -> Item:
    """Ask for a note, or for a request, in other words."""
    if random.random() < 0.6:
        return case.item(random, "rewrite", "note", PHRASINGS, _note(case), {})
    role, purpose, item = policy.draw_request(random, case)
    way, _ = phrasing(random, policy.PHRASINGS["request"], case.unseen_phrasing)
    request = way.format(role=role, purpose=purpose, item=item)
    parts = (Part("who", role, "roles"), Part("why", purpose, "purposes"), Part("what", item, "items"))
    return case.item(random, "rewrite", "request", PHRASINGS, _with_text(parts), {"request": request})


def _note(case: Case) -> tuple[str, tuple[Part, ...]]:
    patient = case.patient
    drugs = [drug for drug, _ in patient.drugs]
    return _with_text(
        (
            Part("age", str(patient.age), "numbers"),
            Part("has", ", ".join(patient.conditions) or NOTHING, "set of conditions"),
            Part("takes", ", ".join(drugs) or NOTHING, "set of drugs"),
            Part("shows", ", ".join(patient.signs) or NOTHING, "set of signs"),
        )
    )


def _with_text(parts: tuple[Part, ...]) -> tuple[str, tuple[Part, ...]]:
    return "; ".join(f"{part.label} {part.answer}" for part in parts), parts
