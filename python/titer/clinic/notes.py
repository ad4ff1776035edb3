"""Writes the note of a patient in a style, and the depot's notices."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from titer.clinic.depot import Notice
from titer.clinic.items import numbers_text
from titer.clinic.patient import Patient
from titer.clinic.styles import FACTS, Style

NOTICE_PHRASES = {
    "lying": ("{count} {name} in {place}.", "in {place}: {count} {name}.", "{place} has {count} {name}."),
    "missing": ("no {name} in {place}.", "{place} has no {name}.", "{name} is not in {place}."),
}


def fact_phrases(random: Random, patient: Patient, style: Style, desk: bool = False) -> list[str]:
    """Put the facts of a patient into words, in the order in which the style tells them.

    Parameters
    ----------
    random : random.Random
        Where the choice of words and of the order comes from.
    patient : Patient
        The facts; those that are empty are not mentioned, but that no drug is taken is said.
    style : Style
        How facts are put into words.
    desk : bool
        Whether the note states the record's code, the cabinet's door and its stock.

    Examples
    --------
    >>> from titer.clinic.notes import fact_phrases, laid_out
    >>> from titer.clinic.patient import Patient
    >>> from titer.clinic.streams import stream
    >>> from titer.clinic.styles import STYLES
    >>> patient = Patient(age=47, days=3, conditions=("gout",), drugs=(("warfarin", 5),), signs=("fever",))
    >>> phrases = fact_phrases(stream(0), patient, STYLES[3])
    >>> laid_out(stream(0), phrases, [], STYLES[3])
    'age: 47 | conditions: gout | drugs: warfarin 5 | signs: fever | days: 3'
    """
    phrases = [random.choice(style.phrases[kind]).format(*values) for kind, values in _facts(patient, style, desk)]
    if not style.ordered:
        random.shuffle(phrases)
    return phrases


def laid_out(random: Random, phrases: Sequence[str], extras: Sequence[str], style: Style) -> str:
    """Make a note of phrases, with opening and closing; the extras, which are no facts, stand anywhere between."""
    phrases = [*phrases]
    for extra in extras:
        phrases.insert(random.randrange(len(phrases) + 1), extra)
    opening, closing = random.choice(style.opening), random.choice(style.closing)
    lead = f"{opening} " if opening else "\n" if style.between == "\n" else ""
    text = style.between.join(f"{style.mark}{phrase}{style.stop}" for phrase in phrases)
    return f"{lead}{text}{' ' if closing else ''}{closing}"


def _facts(patient: Patient, style: Style, desk: bool) -> list[tuple[str, tuple[object, ...]]]:
    """Return the kinds of facts that there are, with what fills the gaps of their phrases."""
    stated: dict[str, tuple[object, ...]] = {"age": (patient.age,), "days": (patient.days,)}
    for kind in ("conditions", "signs", "absent", "family", "suspected", "stopped", "absent_signs"):
        if names := getattr(patient, kind):
            stated[kind] = (style.joiner.join(names),)
    if patient.drugs:
        stated["drugs"] = (style.joiner.join(f"{name} {dose}" for name, dose in patient.drugs),)
    else:
        stated["no_drugs"] = ()
    if desk:
        stated |= {
            "code": (numbers_text(patient.code),),
            "door": (numbers_text(patient.door),),
            "stock": (patient.stock, patient.sealed_drug),
        }
    return [(kind, stated[kind]) for kind in FACTS if kind in stated]


def write_notice(random: Random, notice: Notice) -> str:
    """Write a notice of the depot, its sentences in any order."""
    pieces = [
        random.choice(NOTICE_PHRASES["lying"]).format(count=count, name=name, place=place)
        for count, name, place in notice.lying
    ]
    pieces += [
        random.choice(NOTICE_PHRASES["missing"]).format(name=name, place=place) for name, place in notice.missing
    ]
    random.shuffle(pieces)
    return " ".join(pieces)
