"""The matrix products that scoring cannot do without: recorded with their shapes, and run back to back."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import titer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "python"))

from op_recorder import OpRecorder

Shape = tuple[int, int, int]  # rows, inner dimension, columns


def exchanged(slot_ids: list[int], vocab_size: int, count: int) -> torch.Tensor:
    """Candidates `[count, S]` with one token of the slot exchanged."""
    generator = torch.Generator().manual_seed(0)
    candidates = torch.tensor(slot_ids).repeat(count, 1)
    places = torch.randint(len(slot_ids), (count, 1), generator=generator)
    return candidates.scatter_(1, places, torch.randint(3, vocab_size, (count, 1), generator=generator))


def products(session: titer.CandidateScorer, candidates: torch.Tensor) -> list[Shape]:
    """Shapes of all matrix products of one call, in order."""
    with OpRecorder() as recorder:
        session.losses(candidates)
    shapes: list[Shape] = []
    for call in recorder.calls:
        sizes = [argument for argument in call.arguments if isinstance(argument, torch.Size) and len(argument) == 2]
        if call.name in ("titer::linear", "titer::linear_cross_entropy_forward"):
            (m, k), (n, _) = sizes[:2]
            shapes.append((m, k, n))
        elif call.is_gemm:
            (m, k), (_, n) = sizes[-2:]
            shapes.append((m, k, n))
    return shapes


class Products:
    """The products, each with the next of as many weights of its size as the model has."""

    def __init__(self, shapes: list[Shape], dtype: torch.dtype, device: str = "cpu") -> None:
        rows = max(m for m, _, _ in shapes)
        blocks = max(1, sum(n == max(n for _, _, n in shapes) for _, _, n in shapes))  # one head product per block
        sizes = {(k, n) for _, k, n in shapes}
        self.x = {k: torch.randn(rows, k, dtype=dtype, device=device) for k, _ in sizes}
        self.out = {n: torch.empty(rows, n, dtype=dtype, device=device) for _, n in sizes}
        self.weights = {
            size: [torch.randn(*size[::-1], dtype=dtype, device=device) for _ in range(_number(shapes, size, blocks))]
            for size in sizes
        }
        self.shapes = shapes

    def run(self) -> None:
        used = dict.fromkeys(self.weights, 0)
        for m, k, n in self.shapes:
            weights = self.weights[k, n]
            weight = weights[used[k, n] % len(weights)]
            used[k, n] += 1
            torch.mm(self.x[k][:m], weight.t(), out=self.out[n][:m])


def _number(shapes: list[Shape], size: tuple[int, int], blocks: int) -> int:
    return max(1, sum((k, n) == size for _, k, n in shapes) // blocks)
