"""Task `drugs` (treatment): the drug for a condition, given what the patient takes.

The target is one fixed drug. It is wrong wherever the rules choose another one, and dangerous where it is
contraindicated with what the patient takes, as in the pair that the lexicon names.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from titer.clinic.items import Item, labelled
from titer.clinic.phrasings import Phrasings
from titer.clinic.tasks.case import Case

PHRASINGS: Phrasings = {
    "drug": (
        "which drug for {condition}?",
        "what should the patient take for {condition}?",
        "drug for {condition}?",
        "{condition}: which drug is right?",
        "which drug is right for {condition}?",
    )
}


def question(random: Random, case: Case) -> Item:
    """Ask for the drug for one of the patient's conditions."""
    condition = random.choice(case.patient.conditions)
    target, _ = case.rules.lexicon.dangerous_pair
    answer = labelled(condition, case.rules.drug(condition, case.patient), "drugs", target)
    item = case.item(random, "drugs", "drug", PHRASINGS, answer, {"condition": condition})
    dangerous = any(case.rules.are_contraindicated(target, drug) for drug, _ in case.patient.drugs)
    return replace(item, dangerous=dangerous)
