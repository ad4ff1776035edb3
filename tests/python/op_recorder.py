"""Records the tensor operations that a block of code runs, those of C++ and of the backward pass included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_GEMMS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm")
_LINEAR = "titer::linear"
_ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"


@dataclass(frozen=True)
class Call:
    """One operation: tensors are described by their shapes, the lengths that attention gets by their values."""

    name: str
    arguments: tuple[Any, ...]
    output: tuple[int, ...]

    @property
    def is_gemm(self) -> bool:
        return self.name in _GEMMS or self.name == _LINEAR

    @property
    def flops(self) -> float:
        """Floating-point operations, 2 per multiply-add, of matrix products and attention; 0 for the rest."""
        shapes = [argument for argument in self.arguments if isinstance(argument, torch.Size)]
        if self.is_gemm:
            inner = shapes[0 if self.name == _LINEAR else -2][-1]
            return 2.0 * torch.Size(self.output).numel() * inner
        if self.name in (_ATTENTION, _ATTENTION + "_backward"):
            # The backward pass has its query behind the gradient. It computes the scores again, then the gradients of
            # probabilities, values, queries and keys: five products where the forward pass has two.
            backward = self.name != _ATTENTION
            query, key = shapes[backward], shapes[backward + 1]
            return (10.0 if backward else 4.0) * query.numel() * key[-2]
        if self.name == "titer::linear_cross_entropy_forward":
            (rows, width), (vocabulary, _), _ = shapes
            keeps_mean = self.arguments[3]  # of the other rows of the weight, which is what the backward pass needs
            return (4.0 if keeps_mean else 2.0) * rows * width * vocabulary
        if self.name == "titer::shared_prefix_attention":
            query, rows, visible, queries = self.arguments[0], *self.arguments[5:8]
            pairs = sum((queries or own) * (own + seen) for own, seen in zip(rows, visible, strict=True))
            return 4.0 * pairs * query[1:].numel()
        return 0.0


class OpRecorder(TorchDispatchMode):
    """Lists in `calls` what runs inside its block, in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    @property
    def flops(self) -> float:
        return sum(call.flops for call in self.calls)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        shape = tuple(first.shape) if isinstance(first, torch.Tensor) else ()
        name = func.name().split(".")[0]
        described = [argument.shape if isinstance(argument, torch.Tensor) else argument for argument in args]
        if name == "titer::shared_prefix_attention":
            described[5:7] = [lengths.tolist() for lengths in args[5:7]]
        self.calls.append(Call(name, tuple(described), shape))
        return output
