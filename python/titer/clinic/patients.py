"""Draws patients on whom rules decide either way about equally often, so that no constant answer does well."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from random import Random

from titer.clinic.held_out import HeldOut
from titer.clinic.patient import Patient
from titer.clinic.rules import Rules

_OLDEST = 95  # years


class Pairs(Enum):
    """Which combinations a patient may show."""

    SEEN = "seen"  # none that is held out
    HELD_OUT = "held out"  # a held-out pair of conditions, and of signs


def draw_patient(random: Random, rules: Rules, held_out: HeldOut, pairs: Pairs = Pairs.SEEN) -> Patient:
    """Draw a patient: the vaccine is recommended to one in two, and about as many take what bars a first choice.

    Parameters
    ----------
    random : random.Random
        Where the draws come from.
    rules : Rules
        Whose decisions are balanced.
    held_out : HeldOut
        What training never shows together.
    pairs : Pairs
        Whether the patient shows such a pair.
    """
    lexicon = rules.lexicon
    # Age and conditions are drawn for the vaccine: with 1/2 it is recommended, otherwise one or both stand against it.
    age_fits, conditions_fit = random.choice((*3 * [(True, True)], (True, False), (False, True), (False, False)))
    age = _age(random, rules, age_fits)
    conditions = _conditions(random, rules, held_out, pairs, conditions_fit)
    drugs = _drugs(random, rules, conditions)
    others = [name for name in lexicon.conditions if name not in conditions]
    random.shuffle(others)
    absent = random.choice((0, 1, 1, 2))
    family = random.choice((0, 1))
    suspected = random.choice((0, 0, 1))
    signs = _signs(random, lexicon.signs, held_out, pairs)
    free_signs = [name for name in lexicon.signs if name not in signs]
    return Patient(
        age=age,
        days=random.randrange(1, 31),
        conditions=conditions,
        drugs=tuple((name, random.randrange(1, 100)) for name in drugs),
        signs=signs,
        absent=tuple(others[:absent]),
        family=tuple(others[absent : absent + family]),
        suspected=tuple(others[absent + family : absent + family + suspected]),
        absent_signs=tuple(random.sample(free_signs, random.choice((0, 0, 1)))),
        stopped=_stopped(random, rules, conditions, drugs),
        code=(random.randrange(10, 100), random.randrange(10, 100)),
        door=(random.randrange(10, 100), random.randrange(10, 100)),
        sealed_drug=random.choice(lexicon.sealed_drugs),
        stock=random.randrange(1, 100),
    )


def _age(random: Random, rules: Rules, fits: bool) -> int:
    first, last = rules.vaccine_ages
    if fits:
        return random.randrange(first, last + 1)
    return random.choice([age for age in range(1, _OLDEST + 1) if not first <= age <= last])


def _conditions(random: Random, rules: Rules, held_out: HeldOut, pairs: Pairs, fit: bool) -> tuple[str, ...]:
    blocking = rules.vaccine_blocked_by
    free = [name for name in rules.lexicon.conditions if name not in blocking]
    if pairs is Pairs.HELD_OUT:
        suitable = [pair for pair in held_out.conditions if fit != any(name in blocking for name in pair)]
        if suitable:
            return tuple(random.sample(random.choice(suitable), 2))
    count = random.choice((1, 1, 1, 2, 2, 2, 2, 3))
    chosen = [] if fit else [random.choice(blocking)]
    for name in random.sample(free, len(free)):
        if len(chosen) == count:
            break
        if not held_out.holds((*chosen, name)):
            chosen.append(name)
    random.shuffle(chosen)
    return tuple(chosen)


def _signs(random: Random, signs: Sequence[str], held_out: HeldOut, pairs: Pairs) -> tuple[str, ...]:
    if pairs is Pairs.HELD_OUT:
        return tuple(random.sample(random.choice(held_out.signs), 2))
    count = random.choice((0, 1, 1, 1, 1, 1, 2, 2, 2, 2))
    if count < 2:
        return tuple(random.sample(signs, count))
    while held_out.holds(pair := random.sample(signs, 2)):
        pass
    return tuple(pair)


def _drugs(random: Random, rules: Rules, conditions: Sequence[str]) -> list[str]:
    """Draw what the patient takes: often a drug that bars a first choice, and sometimes one more."""
    taken: list[str] = []
    for condition in conditions:
        first, _ = rules.choices[condition]
        if len(taken) < 2 and random.random() < 0.5:
            taken.append(random.choice(rules.partners[first] or rules.lexicon.drugs))
    if len(taken) < 2 and random.random() < 0.4:
        _, dangerous = rules.lexicon.dangerous_pair
        taken.append(dangerous if random.random() < 0.2 else random.choice(rules.lexicon.drugs))
    random.shuffle(taken)
    return list(dict.fromkeys(taken))


def _stopped(random: Random, rules: Rules, conditions: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Draw a drug that the patient no longer takes; it often would bar a first choice if it were taken."""
    if random.random() < 0.6:
        return ()
    first, _ = rules.choices[random.choice(conditions)]
    names = [*rules.partners[first]] if random.random() < 0.5 else [*rules.lexicon.drugs]
    free = [name for name in names if name not in taken]
    return (random.choice(free),) if free else ()
