"""The operations as torch sees them: schemas, meta kernels and autograd registrations (torch.library.opcheck)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import titer

ops: Any = titer.ops
Arguments = tuple[Any, ...]


def _matrix(*shape: int, dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_(requires_grad)


def _linear_cross_entropy(grad: bool) -> Arguments:
    return _matrix(5, 16, requires_grad=grad), _matrix(40, 16, requires_grad=grad), torch.arange(5)


def _rope(grad: bool) -> Arguments:
    return _matrix(6, 2, 3, 16, requires_grad=grad), _matrix(6, 8), _matrix(6, 8)


def _rms_norm(grad: bool) -> Arguments:
    return _matrix(6, 24, requires_grad=grad), _matrix(24, requires_grad=grad), 1e-5, "rounded"


def _gated_activation(grad: bool) -> Arguments:
    return _matrix(6, 24, requires_grad=grad), _matrix(6, 24, requires_grad=grad), "silu"


def _linear(grad: bool) -> Arguments:
    return _matrix(6, 16), _matrix(24, 16), _matrix(24), _matrix(6, 24)


def _shared_prefix_attention(grad: bool) -> Arguments:
    lengths = torch.tensor([2, 4]), torch.tensor([5, 3])
    shapes = (6, 2, 3, 8), (6, 2, 8), (6, 2, 8), (2, 5, 8), (2, 5, 8)
    return *(_matrix(*shape, requires_grad=grad) for shape in shapes), *lengths, None, None, 0.5, None


def _token_gradient_topk(grad: bool) -> Arguments:
    return _matrix(5, 16, requires_grad=grad), _matrix(40, 16), torch.arange(40) % 3 > 0, 7


def _batched_lora(grad: bool) -> Arguments:
    factors = (_matrix(2, 3, 8, requires_grad=grad), _matrix(2, 10, 3, requires_grad=grad))
    return (
        _matrix(6, 10, requires_grad=grad),
        _matrix(6, 8, requires_grad=grad),
        *factors,
        torch.tensor([4, 2]),
        [2.0, 1.0],
    )


_DIFFERENTIABLE: dict[str, Callable[[bool], Arguments]] = {
    "linear_cross_entropy": _linear_cross_entropy,
    "rope": _rope,
    "rms_norm": _rms_norm,
    "gated_activation": _gated_activation,
    "shared_prefix_attention": _shared_prefix_attention,
    "batched_lora": _batched_lora,
}


@pytest.mark.parametrize("name", _DIFFERENTIABLE)
@pytest.mark.parametrize("grad", [False, True])
def test_ops_are_registered_as_torch_expects(name: str, grad: bool) -> None:
    torch.library.opcheck(getattr(ops, name).default, _DIFFERENTIABLE[name](grad))


@pytest.mark.parametrize(("name", "make"), [("linear", _linear), ("token_gradient_topk", _token_gradient_topk)])
def test_ops_without_a_derivative_are_registered_as_torch_expects(name: str, make: Callable[[bool], Arguments]) -> None:
    torch.library.opcheck(getattr(ops, name).default, make(False))


@pytest.mark.parametrize("name", ["rope", "rms_norm", "gated_activation", "shared_prefix_attention", "linear"])
def test_out_variants_write_what_the_others_return(name: str) -> None:
    arguments = {**_DIFFERENTIABLE, "linear": _linear}[name](False)
    expected = getattr(ops, name)(*arguments)
    out = torch.full_like(expected, 7)
    written = getattr(ops, name).out(*arguments, out=out)
    assert written.data_ptr() == out.data_ptr()
    assert torch.equal(out, expected)
    torch.library.opcheck(
        getattr(ops, name).out, arguments, {"out": torch.empty_like(out)}, test_utils=["test_schema", "test_faketensor"]
    )


def test_batched_lora_in_place_writes_what_the_other_returns() -> None:
    arguments = _batched_lora(False)
    torch.library.opcheck(ops.batched_lora_.default, arguments)
    expected = ops.batched_lora(*arguments)
    assert ops.batched_lora_(*arguments).data_ptr() == arguments[0].data_ptr()
    assert torch.equal(arguments[0], expected)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "batched_lora",
            (_matrix(3, 8), _matrix(3, 6), _matrix(2, 4, 6), _matrix(2, 8, 4), torch.tensor([1, 1]), [1.0, 1.0]),
            r"\[batched_lora\] rows must add up to the rows of x, 3, got 2",
        ),
        ("rope", (_matrix(3, 8), _matrix(3, 5), _matrix(3, 5)), r"\[rope\] cos must have shape \[3, r/2\]"),
        ("rms_norm", (_matrix(3, 8), _matrix(8), 1e-5, "other"), r"\[rms_norm\] scale must be 'rounded'"),
        (
            "token_gradient_topk",
            (_matrix(3, 8), _matrix(9, 8), torch.ones(9, dtype=torch.bool), 10),
            r"\[token_gradient_topk\] k must be in \[1, 9\]",
        ),
        ("gated_activation", (_matrix(3, 8), _matrix(3, 8), "relu"), r"\[gated_activation\] activation must be 'silu'"),
    ],
)
def test_bad_arguments_are_value_errors(name: str, arguments: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(ops, name)(*arguments)
