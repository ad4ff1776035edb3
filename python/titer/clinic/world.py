"""A world: its words, its rules, and what its training data never shows."""

from __future__ import annotations

import os

from titer.clinic.depot import Depot
from titer.clinic.held_out import HeldOut
from titer.clinic.lexicon import load_lexicon
from titer.clinic.rules import Rules
from titer.clinic.vocabulary import Vocabulary, vocabulary


class World:
    """The clinic and the depot of one lexicon.

    The same lexicon always gives the same rules; the seed of a build changes patients and notes only.

    Parameters
    ----------
    lexicon : str or path
        `"invented"`, `"english"`, or the path of a YAML file with the same keys.

    Attributes
    ----------
    lexicon, rules, revised_rules, depot, held_out
        The words, the rules, those of the revised guideline, the rules of the second world, and what is held out.

    Raises
    ------
    ValueError, FileNotFoundError
        As :func:`load_lexicon`.

    Examples
    --------
    >>> from titer.clinic import World
    >>> world = World("english")
    >>> first, second = world.rules.choices["asthma"]
    >>> first in world.lexicon.drugs
    True
    """

    def __init__(self, lexicon: str | os.PathLike[str] = "invented") -> None:
        self.lexicon = load_lexicon(lexicon)
        self.rules = Rules.draw(self.lexicon)
        self.revised_rules = self.rules.revised()
        self.depot = Depot.draw(self.lexicon)
        self.held_out = HeldOut.draw(self.lexicon)
        self._vocabulary = vocabulary(self.lexicon)

    def vocabulary(self) -> Vocabulary:
        """Return every entity, number and word that the world can write."""
        return self._vocabulary

    def __repr__(self) -> str:
        return f"World(lexicon={self.lexicon.name!r})"
