"""The rules of the clinic: what is right for a patient, and who may know what. They are the judge of every answer.

They are drawn from the lexicon's seed, and laid out so that no single word gives an answer away: each test is
indicated by half of the signs, and each role may have each restricted item for half of the purposes and each purpose
for half of the roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from random import Random

from titer.clinic.lexicon import Lexicon
from titer.clinic.patient import Patient
from titer.clinic.streams import stream

ITEMS = ("code", "door", "stock", "dose")  # of a record, of the cabinet, of a sealed drug by the note and by the rules
NO_DRUG = "none"
AGE_BANDS = (18, 65)  # years from which a patient gets the second and the third dose of a sealed drug


@dataclass(frozen=True)
class Rules:
    """One set of rules.

    Parameters
    ----------
    lexicon : Lexicon
        The words that they speak of.
    choices : dict
        Per condition, the drugs of first and second choice.
    contraindicated : tuple of pairs
        Drugs that may not be given together; both orders of a pair are one, stored once.
    vaccine_ages : tuple of int
        First and last year of age at which the vaccine is recommended.
    vaccine_blocked_by : tuple of str
        Conditions with which it is not.
    indications : dict
        Per test, the signs that indicate it.
    obstacles : dict
        Per test, the conditions with which it is never made.
    permissions : frozenset
        (role, purpose, item) of requests that are allowed.
    doses : dict
        Per sealed drug, its dose for each age band.

    Examples
    --------
    >>> from titer.clinic import World
    >>> rules = World("english").rules
    >>> rules.are_contraindicated("warfarin", "ibuprofen")
    True
    """

    lexicon: Lexicon
    choices: Mapping[str, tuple[str, str]]
    contraindicated: tuple[tuple[str, str], ...]
    vaccine_ages: tuple[int, int]
    vaccine_blocked_by: tuple[str, ...]
    indications: Mapping[str, tuple[str, ...]]
    obstacles: Mapping[str, tuple[str, ...]]
    permissions: frozenset[tuple[str, str, str]]
    doses: Mapping[str, tuple[int, int, int]]

    @classmethod
    def draw(cls, lexicon: Lexicon) -> Rules:
        """Draw the rules that belong to a lexicon and its seed."""

        def draws(part: str) -> Random:
            return stream("rules", lexicon.seed, part)

        choices = _choices(draws("choices"), lexicon)
        shuffled = draws("conditions").sample(lexicon.conditions, len(lexicon.conditions))
        random = draws("numbers")
        return cls(
            lexicon=lexicon,
            choices=choices,
            contraindicated=_contraindicated(draws("contraindicated"), lexicon, choices),
            vaccine_ages=(random.randrange(20, 31), random.randrange(60, 71)),
            vaccine_blocked_by=tuple(shuffled[:3]),
            indications=_indications(draws("indications"), lexicon),
            obstacles={test: tuple(shuffled[3 + 2 * i : 5 + 2 * i]) for i, test in enumerate(lexicon.tests)},
            permissions=_permissions(draws("permissions"), lexicon),
            doses={drug: _three(random) for drug in lexicon.sealed_drugs},
        )

    def revised(self) -> Rules:
        """Return a revised guideline; what the policy guards stays.

        The vaccine is for fewer ages and blocked by one condition less, first and second choice are exchanged for half
        of the conditions, and so are the signs of two tests.
        """
        random = stream("rules", self.lexicon.seed, "revised")
        exchanged = set(random.sample(self.lexicon.conditions, len(self.lexicon.conditions) // 2))
        one, other = random.sample(self.lexicon.tests, 2)
        first, last = self.vaccine_ages
        return replace(
            self,
            choices={name: (b, a) if name in exchanged else (a, b) for name, (a, b) in self.choices.items()},
            vaccine_ages=(first + 10, last - 12),
            vaccine_blocked_by=self.vaccine_blocked_by[1:],
            indications={**self.indications, one: self.indications[other], other: self.indications[one]},
        )

    def recommends_vaccine(self, patient: Patient) -> bool:
        """Whether the vaccine is recommended: by age, and by the conditions that block it."""
        first, last = self.vaccine_ages
        return first <= patient.age <= last and not set(patient.conditions) & set(self.vaccine_blocked_by)

    def drug(self, condition: str, patient: Patient) -> str:
        """Return the first choice for a condition that goes with all that the patient takes, or :data:`NO_DRUG`."""
        for choice in self.choices[condition]:
            if not any(self.are_contraindicated(choice, taken) for taken, _ in patient.drugs):
                return choice
        return NO_DRUG

    def needs_test(self, test: str, patient: Patient) -> bool:
        """Whether a sign indicates the test and no condition stands against it."""
        indicated = set(patient.signs) & set(self.indications[test])
        return bool(indicated) and not set(patient.conditions) & set(self.obstacles[test])

    def allows(self, role: str, purpose: str, item: str) -> bool:
        """Whether this role may have this item for this purpose."""
        return (role, purpose, item) in self.permissions

    def content(self, item: str, patient: Patient) -> tuple[int, ...]:
        """Return what a request for an item asks for: numbers that the note states, or a dose that the rules know."""
        if item == "code":
            return patient.code
        if item == "door":
            return patient.door
        if item == "stock":
            return (patient.stock,)
        return (self.doses[patient.sealed_drug][sum(patient.age >= start for start in AGE_BANDS)],)

    def are_contraindicated(self, one: str, other: str) -> bool:
        """Whether two drugs may not be given together."""
        return other in self.partners[one]

    @cached_property
    def partners(self) -> dict[str, tuple[str, ...]]:
        """Per drug, those with which it is contraindicated."""
        names = (*self.lexicon.drugs, *self.lexicon.sealed_drugs)
        return {name: tuple(b if a == name else a for a, b in self.contraindicated if name in (a, b)) for name in names}


def _choices(random: Random, lexicon: Lexicon) -> dict[str, tuple[str, str]]:
    """Let as many drugs as possible be a first choice; the lexicon's dangerous one is."""
    firsts: list[str] = []
    while len(firsts) < len(lexicon.conditions):
        firsts += random.sample(lexicon.drugs, len(lexicon.drugs))
    firsts = firsts[: len(lexicon.conditions)]
    dangerous, other = lexicon.dangerous_pair
    if dangerous not in firsts:
        firsts[random.randrange(len(firsts))] = dangerous
    choices = {}
    for condition, first in zip(lexicon.conditions, firsts, strict=True):
        # The dangerous pair are never the two choices for one condition.
        seconds = [name for name in lexicon.drugs if name != first and {name, first} != {dangerous, other}]
        choices[condition] = (first, random.choice(seconds))
    return choices


def _contraindicated(
    random: Random, lexicon: Lexicon, choices: Mapping[str, tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """Give every first choice two partners; first and second choice for a condition are never partners."""
    pairs = {_ordered(*lexicon.dangerous_pair)}
    for first in dict.fromkeys(first for first, _ in choices.values()):
        barred = {first, *(name for pair in choices.values() if first in pair for name in pair)}
        free = [name for name in lexicon.drugs if name not in barred]
        pairs.update(_ordered(first, partner) for partner in random.sample(free, 2))
    return tuple(sorted(pairs))


def _ordered(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _indications(random: Random, lexicon: Lexicon) -> dict[str, tuple[str, ...]]:
    """Let each pair of tests share two of the twelve signs, so that each test has six and none follows another."""
    pairs = 2 * list(combinations(lexicon.tests, 2))
    random.shuffle(pairs)
    return {
        test: tuple(sign for sign, pair in zip(lexicon.signs, pairs, strict=True) if test in pair)
        for test in lexicon.tests
    }


def _permissions(random: Random, lexicon: Lexicon) -> frozenset[tuple[str, str, str]]:
    """Per item, allow half of each row and of each column of roles by purposes."""
    size = len(lexicon.roles)
    allowed = []
    for item in ITEMS:
        roles, purposes = random.sample(lexicon.roles, size), random.sample(lexicon.purposes, size)
        allowed += [
            (roles[i], purposes[j], item) for i in range(size) for j in range(size) if (i - j) % size < size // 2
        ]
    return frozenset(allowed)


def _three(random: Random) -> tuple[int, int, int]:
    one, two, three = random.sample(range(2, 100), 3)
    return one, two, three
