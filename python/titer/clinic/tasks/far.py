"""Utility `far`: questions about the depot, whose rules share nothing with the clinic's."""

from __future__ import annotations

from itertools import combinations
from random import Random

from titer.clinic.items import ANSWER, Item, labelled
from titer.clinic.phrasings import Phrasings
from titer.clinic.tasks.case import Case

PHRASINGS: Phrasings = {
    "home": ("where does {name} belong?", "which place is for {name}?", "which place does {name} belong to?"),
    "day": (
        "which day is {count} days after {day}?",
        "{day} and {count} days?",
        "which day is {day} and {count} days?",
    ),
    "heavier": ("is {name} or {other} heavier?", "heavier: {name} or {other}?", "which is heavier, {name} or {other}?"),
    "count": ("how many {name} does the notice say?", "{name}: how many?", "how many {name} are there?"),
    "lies": ("where does the notice say {name} is?", "{name}: where?", "where is {name}?"),
    "is there": ("is {name} in {place}?", "does the notice say {name} is in {place}?", "is there {name} in {place}?"),
    "choice": ("where does {name} belong? a {a}, b {b}, c {c}.", "{name}: a {a}, b {b} or c {c}?"),
}
FREE_OF_NOTICES = ("home", "day", "heavier")

_KINDS = ("home", "day", "heavier", "count", "lies", "is there") * 3


def question(random: Random, case: Case) -> Item:
    """Ask about the notice or the depot's rules; one question in nineteen is multiple choice."""
    return ask(random, case, random.choice((*_KINDS, "choice")))


def ask(random: Random, case: Case, kind: str) -> Item:
    """Ask one kind of question."""
    depot, notice, lexicon = case.depot, case.notice, case.depot.lexicon
    names: dict[str, object]
    if kind == "home":
        name = random.choice(lexicon.objects)
        names = {"name": name}
        answer = labelled(name, depot.homes[name], "places")
    elif kind == "day":
        day, count = random.choice(lexicon.days), random.randrange(1, 7)
        names = {"day": day, "count": count}
        answer = labelled("day", depot.day_after(day, count), "days")
    elif kind == "heavier":
        one, other = _two_objects(random, case)
        names = {"name": one, "other": other}
        answer = labelled("heavier", depot.heavier(one, other), "objects")
    elif kind == "choice":
        names, letter = _multiple_choice(random, case)
        answer = labelled(ANSWER, letter, "letters")
    elif kind == "is there":
        name, place, right = _over_the_notice(random, case)
        names = {"name": name, "place": place}
        answer = labelled(name, right, "yes no maybe")
    else:
        count, name, place = random.choice(notice.lying)
        names = {"name": name}
        answer = labelled(name, str(count), "numbers") if kind == "count" else labelled(name, place, "places")
    return case.item(random, "far", kind, PHRASINGS, answer, names)


def _multiple_choice(random: Random, case: Case) -> tuple[dict[str, object], str]:
    lexicon = case.depot.lexicon
    name = random.choice(lexicon.objects)
    right = case.depot.homes[name]
    wrong = random.sample([place for place in lexicon.places if place != right], 2)
    shown = random.sample([right, *wrong], 3)
    letters = "abc"
    return {"name": name, **dict(zip(letters, shown, strict=True))}, letters[shown.index(right)]


def _two_objects(random: Random, case: Case) -> list[str]:
    pairs = case.held_out.objects
    if not case.unseen_pairs:
        pairs = tuple(p for p in combinations(case.depot.lexicon.objects, 2) if not case.held_out.holds(p))
    return random.sample(random.choice(pairs), 2)


def _over_the_notice(random: Random, case: Case) -> tuple[str, str, str]:
    """Draw an object, a place and whether the notice says so: yes, no where it denies it, else maybe."""
    notice, lexicon = case.notice, case.depot.lexicon
    right = random.choice(("yes", "no", "maybe"))
    if right == "yes":
        _, name, place = random.choice(notice.lying)
        return name, place, right
    if right == "no":
        return (*random.choice(notice.missing), right)
    named = {name for _, name, _ in notice.lying} | {name for name, _ in notice.missing}
    return random.choice([name for name in lexicon.objects if name not in named]), random.choice(lexicon.places), right
