"""What training never shows: pairs of conditions, of signs and of objects, two styles, and some ways to ask.

Every rule is shown; what is held out is that two things stand together. Attacks and utility are scored there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from titer.clinic.lexicon import Lexicon
from titer.clinic.streams import stream

_SHARE = 0.2


@dataclass(frozen=True)
class HeldOut:
    """The held-out combinations of one world."""

    conditions: tuple[tuple[str, str], ...]
    signs: tuple[tuple[str, str], ...]
    objects: tuple[tuple[str, str], ...]

    @classmethod
    def draw(cls, lexicon: Lexicon) -> HeldOut:
        """Draw a fifth of the pairs of each kind, from the lexicon's seed."""
        return cls(
            conditions=_fifth(lexicon.conditions, "conditions", lexicon.seed),
            signs=_fifth(lexicon.signs, "signs", lexicon.seed),
            objects=_fifth(lexicon.objects, "objects", lexicon.seed),
        )

    def holds(self, names: Iterable[str]) -> bool:
        """Whether two of these names are held out together."""
        return any(frozenset(pair) in self._pairs for pair in combinations(names, 2))

    @cached_property
    def _pairs(self) -> frozenset[frozenset[str]]:
        return frozenset(frozenset(pair) for pair in (*self.conditions, *self.signs, *self.objects))


def _fifth(names: tuple[str, ...], kind: str, seed: int) -> tuple[tuple[str, str], ...]:
    pairs = list(combinations(names, 2))
    return tuple(sorted(stream("held out", seed, kind).sample(pairs, round(_SHARE * len(pairs)))))
