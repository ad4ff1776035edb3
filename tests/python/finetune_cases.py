"""What tests of fine-tuning share: random sequences with answers, runs of them, and how two trainings are compared."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

import titer
from titer import _titer

Sequences = list[tuple[list[int], list[tuple[int, int]]]]
Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]

OPTIONS: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 8.0, "learning_rate": 5e-3, "batch_size": 3}


class Run(NamedTuple):
    """One training: options beyond `OPTIONS`, and what it learns from."""

    options: dict[str, Any]
    data: Sequences

    @property
    def settings(self) -> _titer.FinetuneOptions:
        return _titer.FinetuneOptions(**OPTIONS | self.options)


def finetune(model: titer.Model, runs: Sequence[Run], **how: Any) -> _titer.Finetuning:
    return _titer.finetune(model, [(run.settings, _titer.TrainingData(run.data)) for run in runs], **how)


@cache
def sequences(count: int, seed: int, lengths: tuple[int, int] = (6, 20), vocabulary: int = 320) -> Sequences:
    """Random tokens, of which one span or two, apart from each other, are answers."""
    draw = random.Random(seed)
    out: Sequences = []
    for _ in range(count):
        length = draw.randint(*lengths)
        begin = draw.randint(2, length - 2)
        answers = [(begin, draw.randint(begin + 1, length))]
        if begin > 4:
            answers.insert(0, (draw.randint(1, 2), 4))
        out.append(([draw.randrange(vocabulary) for _ in range(length)], answers))
    return out


def losses(result: _titer.FinetuneResult) -> list[float]:
    return [step.loss for step in result.steps]


def first_factors(model: titer.Model, run: Run) -> Factors:
    """Return what the run begins with: the first step of a warm-up changes nothing."""
    unchanged = Run(run.options | {"warmup_steps": 1, "max_steps": 1}, run.data)
    return finetune(model, [unchanged]).runs[0].adapter.modules


def largest_difference(one: Factors, other: Factors) -> float:
    """Return that between the factors of two adapters."""
    assert one.keys() == other.keys()
    return max(float((a - b).abs().max()) for name in one for a, b in zip(one[name], other[name], strict=True))


def assert_same_bits(one: _titer.FinetuneResult, other: _titer.FinetuneResult) -> None:
    assert (one.status, one.message) == (other.status, other.message)
    assert one.trace.equals(other.trace)
    if one.adapter is not None:
        assert all(
            torch.equal(a, b)
            for name, factors in one.adapter.modules.items()
            for a, b in zip(factors, other.adapter.modules[name], strict=True)
        )
    else:
        ids = torch.arange(64)[None]
        assert torch.equal(one.model(ids), other.model(ids))
