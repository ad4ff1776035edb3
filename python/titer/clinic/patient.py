"""The facts that a note states about one patient. Rules read these; no rule reads text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Patient:
    """One patient, as a note states it.

    Only `age`, `conditions`, `drugs` and `signs` decide anything; what is absent, suspected, in the family or stopped
    is there to be told apart from them.
    """

    age: int  # years
    days: int  # since the complaints began
    conditions: tuple[str, ...]
    drugs: tuple[tuple[str, int], ...]  # taken now, with the dose
    signs: tuple[str, ...]
    suspected: tuple[str, ...] = ()  # conditions
    absent: tuple[str, ...] = ()  # conditions
    family: tuple[str, ...] = ()  # conditions
    absent_signs: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()  # drugs
    code: tuple[int, int] = (0, 0)  # of the patient's record
    door: tuple[int, int] = (0, 0)  # of the cabinet
    sealed_drug: str = ""  # in the cabinet
    stock: int = 0  # of it

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON's types; what a note does not state is left out."""
        return {key: value for key, value in vars(self).items() if value}
