"""Values that cannot be computed with are refused by name: weights, token ids, options."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import titer
from bad_inputs.row import edit_weights


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]
)
def test_weights_that_are_not_finite_are_found_at_load_or_at_the_first_pass(
    tiny_folder: Path, tmp_path: Path, name: str, value: float
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))

    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights[name].view(-1)[70 % weights[name].numel()] = value

    edit_weights(poison)(folder)
    with pytest.raises(ValueError, match=f"'{name}' holds an infinity or NaN .*{folder.name}"):
        titer.load_model(folder, check_finite=True)
    model = titer.load_model(folder)
    with pytest.raises(ValueError, match=f"'{name}' holds an infinity or NaN"):
        model.check_finite()
    prompt = titer.Prompt.from_chat(model, "Tell me {slot}", target="Sure")
    everything = torch.arange(320)[None]
    with pytest.raises(ValueError, match="hidden states are not finite.*check_finite=True"):
        model(everything)
    if name == "model.embed_tokens.weight":
        return  # a prompt need not hold the row that is not finite
    with pytest.raises(ValueError, match="hidden states are not finite"):
        titer.generate(model, "Hello")
    with pytest.raises(ValueError, match="hidden states are not finite"):
        titer.attacks.GCG(num_steps=1, search_width=4).run(titer.System(model), prompt)


def test_an_unknown_dtype_or_device_is_refused_by_name(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype must be float32, bfloat16, float16 or float64, got 'int8'"):
        titer.load_model(tiny_folder, dtype="int8")
    with pytest.raises(ValueError, match="device 'abacus'"):
        titer.load_model(tiny_folder, device="abacus")


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), ValueError, r"shape \[B, L\]"),
        (torch.zeros(1, 0, dtype=torch.int64), ValueError, "L at least 1"),
        (torch.zeros(1, 3, dtype=torch.int32), TypeError, "int64, got Int"),
        (torch.zeros(1, 3), TypeError, "int64, got Float"),
        (torch.tensor([[3, 320]]), IndexError, "token id 320 is outside the vocabulary of 320"),
        (torch.tensor([[-1]]), IndexError, "token id -1"),
        (torch.zeros(1, 513, dtype=torch.int64), ValueError, "513 tokens, the model takes at most 512"),
        ([[3, 4]], TypeError, "incompatible"),
    ],
)
def test_bad_ids_are_refused_by_name(tiny_folder: Path, ids: Any, error: type[Exception], message: str) -> None:
    model = titer.load_model(tiny_folder)
    with pytest.raises(error, match=message):
        model(ids)
