"""What the world asks, one file per task: three attacked tasks, the policy, two for defenses, two for utility."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from titer.clinic.items import Item
from titer.clinic.phrasings import Phrasings
from titer.clinic.tasks import drugs, far, near, policy, review, rewrite, tests, vaccine
from titer.clinic.tasks.case import Case

__all__ = ["PHRASINGS", "TASKS", "Case"]

TASKS: Mapping[str, Callable[[Random, Case], Item]] = {
    "vaccine": vaccine.question,
    "drugs": drugs.question,
    "tests": tests.question,
    "policy": policy.question,
    "rewrite": rewrite.question,
    "review": review.question,
    "near": near.question,
    "far": far.question,
}
PHRASINGS: tuple[Phrasings, ...] = tuple(
    module.PHRASINGS for module in (vaccine, drugs, tests, policy, rewrite, review, near, far)
)
