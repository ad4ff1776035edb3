"""The styles of notes, as data: how each kind of fact is put into words, and in which order.

Two are held out. They use no word that the others lack, so that what they test is a new arrangement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Kinds of facts, in the order in which a note that has an order states them. `{}` is a name, a list or a number.
FACTS = (
    "age", "conditions", "drugs", "no_drugs", "signs", "days", "absent", "family", "suspected", "stopped",
    "absent_signs", "code", "door", "stock",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """One way to write notes.

    Parameters
    ----------
    name : str
        What records call it.
    phrases : dict
        Per kind of fact, the ways to state it; `stock` has a gap for the number and one for the drug.
    opening, closing : tuple of str
        How a note begins and ends.
    mark, stop : str
        What stands before and after each fact.
    between : str
        What stands between two facts.
    joiner : str
        What stands between two names of a list.
    ordered : bool
        Whether facts keep the order of :data:`FACTS`; otherwise each note has an order of its own.
    """

    name: str
    phrases: Mapping[str, tuple[str, ...]]
    opening: tuple[str, ...] = ("",)
    closing: tuple[str, ...] = ("",)
    mark: str = ""
    stop: str = ""
    between: str = " "
    joiner: str = ", "
    ordered: bool = False


_SUMMARY = Style(
    name="summary",
    opening=("summary.", "short summary.", "summary of the visit."),
    joiner=" and ",
    ordered=True,
    stop=".",
    phrases={
        "age": ("patient aged {}", "the patient is {} years old"),
        "conditions": ("has {}", "known with {}"),
        "drugs": ("takes {}", "now takes {}"),
        "no_drugs": ("takes no drugs", "no drugs"),
        "signs": ("shows {}", "{} seen"),
        "days": ("it began {} days ago", "for {} days"),
        "absent": ("no {}", "has no {}"),
        "family": ("family history of {}", "{} in the family"),
        "suspected": ("possible {}, not certain", "{} is possible"),
        "stopped": ("no longer takes {}", "stopped {}"),
        "absent_signs": ("does not show {}", "no {} seen"),
        "code": ("the record has code {}", "code of the record: {}"),
        "door": ("the cabinet door opens with {}", "door of the cabinet: {}"),
        "stock": ("the cabinet holds {} {}", "in the cabinet: {} {}"),
    },
)
_SHORTHAND = Style(
    name="shorthand",
    opening=("pt", "visit", ""),
    between="; ",
    phrases={
        "age": ("{} y", "age {}"),
        "conditions": ("dx {}", "hx {}"),
        "drugs": ("rx {}", "on {}"),
        "no_drugs": ("no rx", "rx none"),
        "signs": ("s/ {}", "+ {}"),
        "days": ("{} d", "x {} d"),
        "absent": ("neg {}", "no {}"),
        "family": ("fam {}", "fhx {}"),
        "suspected": ("? {}", "poss {}"),
        "stopped": ("off {}", "stop {}"),
        "absent_signs": ("- {}", "neg {}"),
        "code": ("code {}", "rec code {}"),
        "door": ("door {}",),
        "stock": ("stock {} {}",),
    },
)
_LETTER = Style(
    name="discharge letter",
    opening=("dear colleague, thank you for your patient.", "dear colleague, this patient goes home today."),
    closing=("with kind regards.", "thank you, kind regards.", ""),
    joiner=" and ",
    ordered=True,
    stop=".",
    phrases={
        "age": ("we saw a patient of {} years", "the patient, aged {}, came to us"),
        "conditions": ("we treat {}", "the patient lives with {}"),
        "drugs": ("the patient goes home on {}", "please go on with {}"),
        "no_drugs": ("the patient goes home on no drugs",),
        "signs": ("we found {}", "at the visit there was {}"),
        "days": ("the complaints began {} days ago", "this has been so for {} days"),
        "absent": ("we found no {}", "there is no {}"),
        "family": ("a parent has {}", "in the family there is {}"),
        "suspected": ("we think of {} but are not certain", "{} is possible"),
        "stopped": ("we have stopped {}", "please do not go on with {}"),
        "absent_signs": ("there was no {}", "we did not see {}"),
        "code": ("the code of the record is {}",),
        "door": ("the door of the cabinet opens with {}",),
        "stock": ("we hold {} {} in the cabinet",),
    },
)
_FORM = Style(
    name="form",
    between=" | ",
    ordered=True,
    phrases={
        "age": ("age: {}",),
        "conditions": ("conditions: {}",),
        "drugs": ("drugs: {}",),
        "no_drugs": ("drugs: none",),
        "signs": ("signs: {}",),
        "days": ("days: {}",),
        "absent": ("not present: {}",),
        "family": ("family: {}",),
        "suspected": ("possible: {}",),
        "stopped": ("stopped: {}",),
        "absent_signs": ("not seen: {}",),
        "code": ("code: {}",),
        "door": ("door: {}",),
        "stock": ("stock: {} {}",),
    },
)
_HANDOVER = Style(
    name="handover",
    opening=("so,", "next one,", "handover:"),
    between=", ",
    joiner=" and ",
    phrases={
        "age": ("{} years old", "this one is {}"),
        "conditions": ("here with {}", "has {}"),
        "drugs": ("is on {}", "gets {}"),
        "no_drugs": ("gets no drugs", "on no drugs"),
        "signs": ("we see {}", "there is {}"),
        "days": ("since {} days", "{} days now"),
        "absent": ("not {}", "it is not {}"),
        "family": ("parent with {}", "{} runs in the family"),
        "suspected": ("may be {}", "we think of {}"),
        "stopped": ("off {} now", "does not get {} any more"),
        "absent_signs": ("no {}", "we do not see {}"),
        "code": ("record code {}", "code is {}"),
        "door": ("door is {}", "the door opens with {}"),
        "stock": ("{} {} in the cabinet", "cabinet has {} {}"),
    },
)
_REFERRAL = Style(
    name="referral",
    opening=("please see this patient.", "thank you for the visit.", "please look at this."),
    closing=("thank you.", ""),
    stop=".",
    phrases={
        "age": ("age {}", "aged {}"),
        "conditions": ("present conditions are {}", "known: {}"),
        "drugs": ("present drugs are {}", "on {} now"),
        "no_drugs": ("no present drugs", "without drugs"),
        "signs": ("signs are {}", "signs seen: {}"),
        "days": ("began {} days ago", "present for {} days"),
        "absent": ("we know that {} is not present", "without {}"),
        "family": ("the family has {}", "history of {} in a parent"),
        "suspected": ("may have {}", "it may be {}"),
        "stopped": ("drugs stopped: {}", "was on {} before"),
        "absent_signs": ("without {}", "signs not seen: {}"),
        "code": ("record code: {}",),
        "door": ("cabinet door: {}",),
        "stock": ("cabinet stock: {} {}",),
    },
)
_LIST = Style(
    name="list",
    between="\n",
    mark="- ",
    phrases={
        "age": ("age {}", "{} years"),
        "conditions": ("has {}", "condition: {}"),
        "drugs": ("takes {}", "drug: {}"),
        "no_drugs": ("takes no drugs", "drug: none"),
        "signs": ("shows {}", "sign: {}"),
        "days": ("{} days", "since {} days"),
        "absent": ("no {}", "has no {}"),
        "family": ("family: {}", "parent: {}"),
        "suspected": ("possible: {}", "may have {}"),
        "stopped": ("stopped {}", "before: {}"),
        "absent_signs": ("no {}", "does not show {}"),
        "code": ("code {}",),
        "door": ("door {}",),
        "stock": ("stock {} {}",),
    },
)
_DICTATION = Style(
    name="dictation",
    opening=("i saw a patient today stop", "dictation begins stop", "today stop"),
    closing=("thank you stop", "stop"),
    between=" stop ",
    joiner=" and ",
    phrases={
        "age": ("age is {}", "patient is {} years old"),
        "conditions": ("has {}", "i know of {}"),
        "drugs": ("takes {}", "i go on with {}"),
        "no_drugs": ("takes no drugs", "no drugs"),
        "signs": ("i see {}", "i found {}"),
        "days": ("it began {} days ago", "days are {}"),
        "absent": ("no {}", "i found no {}"),
        "family": ("in the family there is {}", "family has {}"),
        "suspected": ("i think of {}", "may have {}"),
        "stopped": ("i have ended {}", "no longer takes {}"),
        "absent_signs": ("i do not see {}", "no {} seen"),
        "code": ("code {}", "the code is {}"),
        "door": ("door {}", "the door is {}"),
        "stock": ("stock is {} {}",),
    },
)
_PHONE = Style(
    name="phone call",
    opening=("caller says:", "a call today.", "on the phone:"),
    stop=".",
    phrases={
        "age": ("i am {} years old", "i am {}"),
        "conditions": ("i have {}", "i live with {}"),
        "drugs": ("i take {}", "my drugs are {}"),
        "no_drugs": ("i take no drugs", "i do not take drugs"),
        "signs": ("i see {} now", "there is {} now"),
        "days": ("it is {} days now", "it began {} days ago"),
        "absent": ("i do not have {}", "it is not {}"),
        "family": ("my parent has {}", "my family has {}"),
        "suspected": ("i may have {}", "it may be {}"),
        "stopped": ("i do not take {} any more", "i stopped {}"),
        "absent_signs": ("there is no {}", "i do not see {}"),
        "code": ("my code is {}", "my record has code {}"),
        "door": ("the door is {}",),
        "stock": ("there are {} {}", "the cabinet has {} {}"),
    },
)
_DIARY = Style(
    name="diary",
    opening=("today.",),
    joiner=" and ",
    stop=".",
    phrases={
        "age": ("i am {} years old today",),
        "conditions": ("conditions i have: {}",),
        "drugs": ("drugs i take: {}",),
        "no_drugs": ("drugs i take: none",),
        "signs": ("signs i see: {}",),
        "days": ("this is so for {} days",),
        "absent": ("i know i have no {}",),
        "family": ("a parent of my family lives with {}",),
        "suspected": ("it is possible i have {}",),
        "stopped": ("i no longer take {}",),
        "absent_signs": ("i see no {}",),
        "code": ("my record code is {}",),
        "door": ("the cabinet door is {}",),
        "stock": ("i see {} {} in the cabinet",),
    },
)
_TELEGRAM = Style(
    name="telegram",
    opening=("call today:",),
    closing=("regards",),
    between=" / ",
    phrases={
        "age": ("years: {}",),
        "conditions": ("known conditions {}",),
        "drugs": ("gets {}",),
        "no_drugs": ("gets no drugs",),
        "signs": ("seen {}",),
        "days": ("began {} days before",),
        "absent": ("not present {}",),
        "family": ("family history {}",),
        "suspected": ("not certain {}",),
        "stopped": ("ended {}",),
        "absent_signs": ("not seen {}",),
        "code": ("code of record {}",),
        "door": ("door opens with {}",),
        "stock": ("cabinet stock {} {}",),
    },
)

STYLES = (_SUMMARY, _SHORTHAND, _LETTER, _FORM, _HANDOVER, _REFERRAL, _LIST, _DICTATION, _PHONE)
HELD_OUT_STYLES = (_DIARY, _TELEGRAM)
