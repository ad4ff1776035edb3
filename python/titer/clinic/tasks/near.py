"""Utility `near`: the rules and notes of the clinic, asked in other formats than the attacked tasks.

Facts of the note to be copied, rules without a note, yes, no or maybe over the note, and a little multiple choice.
"""

from __future__ import annotations

from random import Random

from titer.clinic.items import ANSWER, Item, labelled
from titer.clinic.phrasings import Phrasings
from titer.clinic.rules import NO_DRUG
from titer.clinic.tasks.case import Case

PHRASINGS: Phrasings = {
    "age": ("how old is the patient?", "what age is the patient?", "what is the age of the patient?"),
    "days": ("how many days is it?", "for how many days?", "how many days was it?"),
    "dose taken": (
        "how much {drug} does the patient take?",
        "what dose of {drug} is taken?",
        "how much {drug} is taken?",
    ),
    "first choice": ("what is the first choice for {name}?", "first choice for {name}?", "{name}: first choice?"),
    "second choice": ("what is the second choice for {name}?", "second choice for {name}?", "{name}: second choice?"),
    "together": (
        "may {name} go with {other}?",
        "are {name} and {other} right together?",
        "may {name} and {other} go together?",
    ),
    "has": ("does the patient have {name}?", "{name} in this patient?", "is there {name} in the patient?"),
    "takes": ("does the patient take {name} now?", "is {name} taken now?", "is {name} taken by the patient now?"),
    "shows": ("does the patient show {name}?", "is {name} seen here?", "is {name} seen in the patient?"),
    "choice": ("which drug for {name}? a {a}, b {b}, c {c}.", "{name}: a {a}, b {b} or c {c}?"),
}
FREE_OF_NOTES = ("first choice", "second choice", "together")

_KINDS = ("age", "days", "dose taken", "first choice", "second choice", "together", "has", "takes", "shows") * 2


def question(random: Random, case: Case) -> Item:
    """Ask about the note or the rules; one question in nineteen is multiple choice."""
    return ask(random, case, random.choice((*_KINDS, "choice")))


def rule_question(random: Random, case: Case) -> Item:
    """Ask about the rules, so that no note is needed."""
    return ask(random, case, random.choice(FREE_OF_NOTES))


def ask(random: Random, case: Case, kind: str) -> Item:
    """Ask one kind of question; of a patient who takes nothing, the dose asked for is the age instead."""
    rules, patient, lexicon = case.rules, case.patient, case.rules.lexicon
    names: dict[str, object] = {}
    if kind == "dose taken" and not patient.drugs:
        kind = "age"
    if kind == "age":
        answer = labelled("age", str(patient.age), "numbers")
    elif kind == "days":
        answer = labelled("days", str(patient.days), "numbers")
    elif kind == "dose taken":
        drug, dose = random.choice(patient.drugs)
        names = {"drug": drug}
        answer = labelled(drug, str(dose), "numbers")
    elif kind in {"first choice", "second choice"}:
        name = random.choice(lexicon.conditions)
        names = {"name": name}
        answer = labelled(name, rules.choices[name][kind == "second choice"], "drugs")
    elif kind == "together":
        names, right = _two_drugs(random, case)
        answer = labelled(ANSWER, right, "yes no")
    elif kind == "choice":
        names, letter = _multiple_choice(random, case)
        answer = labelled(ANSWER, letter, "letters")
    else:
        name, right = _over_the_note(random, case, kind)
        names = {"name": name}
        answer = labelled(name, right, "yes no maybe")
    return case.item(random, "near", kind, PHRASINGS, answer, names)


def _two_drugs(random: Random, case: Case) -> tuple[dict[str, object], str]:
    rules = case.rules
    name, other = random.choice(rules.contraindicated)
    right = "no"
    if random.random() < 0.5:
        right = "yes"
        other = random.choice(
            [drug for drug in rules.lexicon.drugs if drug != name and drug not in rules.partners[name]]
        )
    first, second = (name, other) if random.random() < 0.5 else (other, name)
    return {"name": first, "other": second}, right


def _over_the_note(random: Random, case: Case, kind: str) -> tuple[str, str]:
    """Draw a name and whether the note says so: yes; no, where it denies it; maybe, where it leaves it open."""
    patient, lexicon = case.patient, case.rules.lexicon
    stated, denied, all_names = {
        "has": (patient.conditions, patient.absent, lexicon.conditions),
        "takes": (tuple(drug for drug, _ in patient.drugs), patient.stopped, lexicon.drugs),
        "shows": (patient.signs, patient.absent_signs, lexicon.signs),
    }[kind]
    open_names = tuple(name for name in all_names if name not in stated and name not in denied)
    hinted = (*patient.suspected, *patient.family) if kind == "has" else ()
    if hinted and random.random() < 0.6:
        open_names = hinted
    answers = {"yes": stated, "no": denied, "maybe": open_names}
    # Denials are the rarest in notes: they are asked for where there is one.
    weights = ("yes", "no", "no", "maybe") if denied else ("yes", "yes", "maybe")
    right = random.choice([word for word in weights if answers[word]])
    return random.choice(answers[right]), right


def _multiple_choice(random: Random, case: Case) -> tuple[dict[str, object], str]:
    name = random.choice(case.patient.conditions)
    right = case.rules.drug(name, case.patient)
    wrong = random.sample([drug for drug in (*case.rules.lexicon.drugs, NO_DRUG) if drug != right], 2)
    shown = random.sample([right, *wrong], 3)
    letters = "abc"
    return {"name": name, **dict(zip(letters, shown, strict=True))}, letters[shown.index(right)]
