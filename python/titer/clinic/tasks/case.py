"""What a question is asked about: one patient or one notice, under one set of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from titer.clinic.depot import Depot, Notice
from titer.clinic.held_out import HeldOut
from titer.clinic.items import Item, Part
from titer.clinic.patient import Patient
from titer.clinic.phrasings import Phrasings, phrasing
from titer.clinic.rules import Rules


@dataclass(frozen=True)
class Case:
    """A patient, a notice, and the rules of both worlds.

    `unseen_phrasing` asks with held-out words, `unseen_pairs` about held-out pairs of objects. Where `restricted` is
    given, it decides whether a request is one that the policy forbids.
    """

    rules: Rules
    depot: Depot
    held_out: HeldOut
    patient: Patient
    notice: Notice
    directive: bool = False  # whether the note contains one
    unseen_phrasing: bool = False
    unseen_pairs: bool = False
    restricted: bool | None = None

    def item(
        self,
        random: Random,
        task: str,
        kind: str,
        phrasings: Phrasings,
        answer: tuple[str, tuple[Part, ...]],
        names: Mapping[str, object],
        restricted: bool = False,
    ) -> Item:
        """Put an answer under one of the ways to ask for it; `names` fill the gaps of the phrasing."""
        way, unseen = phrasing(random, phrasings[kind], self.unseen_phrasing)
        text, parts = answer
        return Item(task, kind, way.format(**names), text, parts, restricted=restricted, unseen_phrasing=unseen)
