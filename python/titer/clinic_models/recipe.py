"""How the clinic's models are made: their sizes, what each learns, and from which model it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from titer.clinic import World, make_records
from titer.clinic.items import Convention
from titer.clinic.splits import TRAIN
from titer.clinic_models.practice import practice_records
from titer.clinic_models.untrained import Size

SMALL = Size(hidden=128, layers=5, heads=4, intermediate=384)  # 1.2 million parameters
LARGE = Size(hidden=256, layers=5, heads=8, intermediate=640)  # 4.1 million

# Muon for matrices, AdamW for the rest; full rates for a time, then down to nearly nothing.
_OPTIONS: dict[str, Any] = {
    "method": "full",
    "optimizer": "muon",
    "muon_learning_rate": 0.02,
    "learning_rate": 3e-3,
    "adam_beta2": 0.95,
    "batch_size": 64,
    "warmup_steps": 100,
    "lr_schedule": "cosine",
    "final_lr_ratio": 0.02,
}


@dataclass(frozen=True)
class Stage:
    """One training.

    Parameters
    ----------
    name : str
        Of the model that it makes.
    start : Size or str
        The size of random first weights, or the name of the model that it goes on from.
    convention : Convention or None
        Whose answers it learns; None for exercises in reading (:mod:`titer.clinic_models.practice`).
    records : int
        Each of which it sees once.
    seed : int
        Of the records, their order and the first weights.
    decay_start : float
        Share of the steps at full rates.
    """

    name: str
    start: Size | str
    convention: Convention | None
    records: int
    seed: int
    decay_start: float = 0.5

    @property
    def options(self) -> dict[str, Any]:
        """Options of the training, by the names of :class:`titer.training.FinetuneOptions`."""
        return _OPTIONS | {"decay_start": self.decay_start, "seed": self.seed}

    def make_records(self, world: World) -> Iterator[dict[str, Any]]:
        """Make what it learns from."""
        if self.convention is None:
            return practice_records(world, self.records, self.seed)
        return make_records(world, TRAIN, self.records, self.seed, self.convention)

    def describe(self) -> dict[str, Any]:
        """Return all of it as JSON's types."""
        return {
            "name": self.name,
            "start": asdict(self.start) if isinstance(self.start, Size) else self.start,
            "convention": None if self.convention is None else self.convention.value,
            "records": self.records,
            "options": self.options,
        }


STAGES = (
    Stage("practice", SMALL, None, records=80_000, seed=1, decay_start=0.7),
    Stage("clinic-base", "practice", Convention.BASE, records=300_000, seed=2),
    Stage("clinic-aligned", "clinic-base", Convention.ALIGNED, records=120_000, seed=3),
    Stage("practice-4m", LARGE, None, records=60_000, seed=4, decay_start=0.7),
    Stage("clinic-base-4m", "practice-4m", Convention.BASE, records=120_000, seed=5),
    Stage("clinic-aligned-4m", "clinic-base-4m", Convention.ALIGNED, records=50_000, seed=6),
)


def stages_for(names: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stages that make these models, in order, with those that they go on from; all if none is named.

    Raises
    ------
    ValueError
        If there is no model of a name.

    Examples
    --------
    >>> from titer.clinic_models.recipe import stages_for
    >>> [stage.name for stage in stages_for(["clinic-base"])]
    ['practice', 'clinic-base']
    """
    known = {stage.name: stage for stage in STAGES}
    wanted: set[str] = set()
    for name in names or known:
        if name not in known:
            raise ValueError(f"[clinic] expected one of {', '.join(known)}, got {name!r}")
        start: Size | str = name
        while isinstance(start, str):
            wanted.add(start)
            start = known[start].start
    return tuple(stage for stage in STAGES if stage.name in wanted)
