"""The second world: a depot with objects, places and days. It shares no rule with the clinic.

Utility `far` asks about it, so that an update or a defense that damages what a model knew elsewhere is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from titer.clinic.lexicon import Lexicon
from titer.clinic.streams import stream


@dataclass(frozen=True)
class Depot:
    """Where each object belongs, which is heavier, and how the days follow each other."""

    lexicon: Lexicon
    homes: Mapping[str, str]
    by_weight: tuple[str, ...]  # from light to heavy

    @classmethod
    def draw(cls, lexicon: Lexicon) -> Depot:
        """Draw the rules that belong to a lexicon and its seed: two objects in each place."""
        random = stream("depot", lexicon.seed)
        objects = random.sample(lexicon.objects, len(lexicon.objects))
        homes = {name: lexicon.places[i % len(lexicon.places)] for i, name in enumerate(objects)}
        return cls(lexicon, homes, tuple(random.sample(lexicon.objects, len(lexicon.objects))))

    def heavier(self, one: str, other: str) -> str:
        """Return the heavier of two objects."""
        return max(one, other, key=self.by_weight.index)

    def day_after(self, day: str, count: int) -> str:
        """Return the day that comes `count` days after another."""
        days = self.lexicon.days
        return days[(days.index(day) + count) % len(days)]


@dataclass(frozen=True)
class Notice:
    """What one notice says: how many of an object lie where, and what is not there. It need not follow the rules."""

    lying: tuple[tuple[int, str, str], ...]  # count, object, place
    missing: tuple[tuple[str, str], ...]  # object, place


def draw_notice(random: Random, lexicon: Lexicon) -> Notice:
    """Draw a notice about two to four objects."""
    lying = random.randrange(1, 4)
    names = random.sample(lexicon.objects, lying + 1)
    return Notice(
        lying=tuple((random.randrange(1, 100), name, random.choice(lexicon.places)) for name in names[:lying]),
        missing=((names[lying], random.choice(lexicon.places)),),
    )
