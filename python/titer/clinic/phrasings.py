"""Ways to ask the same thing. The last of several is held out: training never shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

Phrasings = Mapping[str, Sequence[str]]

HELD_OUT_RULE = "the last of each list in titer/clinic/tasks/*.py and titer/clinic/directives.py"


def phrasing(random: Random, ways: Sequence[str], unseen: bool) -> tuple[str, bool]:
    """Return one of several ways to ask, and whether it is the held-out one.

    Parameters
    ----------
    random : random.Random
        Where the draw comes from.
    ways : sequence of str
        All of them; where there is only one, nothing is held out.
    unseen : bool
        Whether to take the held-out one.
    """
    if unseen and len(ways) > 1:
        return ways[-1], True
    return random.choice(ways[: max(1, len(ways) - 1)]), False
