"""Fine-tuning gives the losses and the weights of transformers, PEFT and torch's optimizers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import titer
from finetune_cases import Run, Sequences, finetune, first_factors, largest_difference, losses, sequences
from model_cases import CASES, Pair, pair
from peft_oracle import train_adapter, train_all
from transformers_oracle import all_logits

# AdamW turns gradients that are nothing but rounding, which differs between machines, into whole steps, where its
# epsilon does not keep them small.
COMMON: dict[str, Any] = {"shuffle": False, "adam_epsilon": 1e-4}
# The second has sequences that are longer than all windows, and than the context that dynamic scaling starts from.
RUNS = [
    Run(COMMON | {"seed": 0, "learning_rate": 1e-2}, sequences(9, 0)),
    Run(COMMON | {"seed": 1, "use_rslora": True, "lr_schedule": "cosine"}, sequences(12, 1, (20, 40))),
    Run(COMMON | {"seed": 2, "num_epochs": 2, "weight_decay": 0.1}, sequences(7, 2, (8, 30))),
]


def assert_as_peft(subject: Pair, runs: list[Run]) -> None:
    results = finetune(subject.model, runs, micro_batch_tokens=100).runs
    for run, result in zip(runs, results, strict=True):
        expected, factors = train_adapter(subject.module, run, first_factors(subject.model, run))
        torch.testing.assert_close(losses(result), expected, rtol=0, atol=1e-4)
        assert largest_difference(result.adapter.modules, factors) <= 1e-4


@pytest.mark.parametrize("case", CASES)
def test_losses_and_adapters_equal_those_of_peft_for_every_family(case: str) -> None:
    assert_as_peft(pair(case), RUNS)


def test_adapters_begin_as_with_peft(tiny_folder: Path) -> None:
    """Factors A are uniform within one over the square root of the inputs, B are zero."""
    run = Run({"lora_rank": 16}, RUNS[0].data)
    first = first_factors(titer.load_model(tiny_folder), run)
    values = []
    for a, b in first.values():
        bound = a.shape[1] ** -0.5
        assert not b.any() and a.abs().max() <= bound
        values.append(a.flatten() / bound)
    one, *others = values
    assert all(not torch.equal(one[:64], other[:64]) for other in others)
    spread = torch.cat(values)
    assert abs(spread.mean()) < 0.03 and abs(spread.var() - 1 / 3) < 0.02 and spread.abs().max() > 0.99
    again = first_factors(titer.load_model(tiny_folder), Run(run.options | {"learning_rate": 0.1}, RUNS[1].data))
    assert largest_difference(first, again) == 0
    other = first_factors(titer.load_model(tiny_folder), Run(run.options | {"seed": 1}, run.data))
    assert largest_difference(first, other) > 0.1


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.1), ("float16", 0.02), ("float64", 1e-4)])
def test_other_dtypes_learn_the_same_up_to_their_rounding(
    tiny_folder: Path, dtype: str, bound: float, method: str
) -> None:
    run = Run({"method": method, "lora_dropout": 0.2, "learning_rate": 1e-3, "num_epochs": 2}, RUNS[2].data)
    expected, result = (
        finetune(titer.load_model(tiny_folder, dtype=kind), [run]).runs[0] for kind in ("float32", dtype)
    )
    torch.testing.assert_close(losses(result), losses(expected), rtol=0, atol=bound)
    if method == "lora":
        assert all(factor.dtype == torch.float32 for pair in result.adapter.modules.values() for factor in pair)
    else:
        assert result.model.dtype == dtype


# Suffixes as PEFT takes them; those of fused modules, whose products are several, among them.
@pytest.mark.parametrize(
    ("case", "targets"),
    [
        ("grouped heads, tied", ["q_proj", "down_proj"]),
        ("biases", ["self_attn.v_proj"]),
        ("gemma3", ["k_proj", "o_proj", "gate_proj"]),
        ("phi3", ["qkv_proj"]),
        ("phi3, partial rotary, window", ["gate_up_proj", "o_proj"]),
        ("gpt2", ["c_attn", "mlp.c_proj"]),
        ("gpt2, its scales", ["c_proj"]),
        ("gpt_neox", ["query_key_value", "dense_4h_to_h"]),
    ],
)
def test_some_of_the_layers_train_as_with_peft(case: str, targets: list[str]) -> None:
    assert_as_peft(pair(case), [Run(run.options | {"target_modules": targets}, run.data) for run in RUNS])


def test_one_module_of_one_layer_trains_as_with_peft() -> None:
    runs = [Run(run.options | {"target_modules": ["layers.1.mlp.up_proj"]}, run.data) for run in RUNS]
    assert_as_peft(pair("qwen3"), runs)
    assert list(finetune(pair("qwen3").model, runs).runs[0].adapter.modules) == ["model.layers.1.mlp.up_proj"]


def sums(model: titer.Model, count: int) -> Sequences:
    """Sums with their results; all have one length, as the numbers have three digits."""
    out: Sequences = []
    for i in (37 * i % 100 for i in range(count)):
        texts = (f"<|im_start|>Add {100 + i} and {300 + 3 * i}: ", f"{400 + 4 * i}.<|im_end|>")
        before, after = (model.tokenizer.encode(text) for text in texts)
        out.append((before + after, [(len(before), len(before) + len(after))]))
    return out


def test_the_loss_curve_of_smollm2_is_that_of_peft(smollm2_folder: Path, smollm2_module: PreTrainedModel) -> None:
    model = titer.load_model(smollm2_folder, dtype="float32")
    # At larger rates the loss jumps, and the jumps make the roundings of either larger than the bound.
    run = Run({"shuffle": False, "batch_size": 2, "warmup_steps": 5, "learning_rate": 3e-4}, sums(model, 100))
    result = finetune(model, [run]).runs[0]
    expected, _ = train_adapter(smollm2_module, run, first_factors(model, run))
    assert len(expected) == 50 and max(expected[-5:]) < 0.6 * expected[0]
    torch.testing.assert_close(losses(result), expected, rtol=0, atol=1e-3)


WHOLE_RUNS = {
    "adamw": {"weight_decay": 0.1},
    "adamw, cosine": {"lr_schedule": "cosine", "warmup_steps": 2, "num_epochs": 2},
    "muon": {"optimizer": "muon", "muon_learning_rate": 5e-3},
    "muon, decay": {"optimizer": "muon", "muon_learning_rate": 5e-3, "weight_decay": 0.5, "muon_momentum": 0.8},
}


@pytest.mark.parametrize("options", WHOLE_RUNS.values(), ids=WHOLE_RUNS)
@pytest.mark.parametrize(
    "case", ["grouped heads, tied", "biases", "gemma3", "phi3", "olmo2", "gpt2", "gpt2, its scales", "gpt_neox"]
)
def test_all_weights_train_as_with_torch(case: str, options: dict[str, Any]) -> None:
    run = Run({"method": "full", "shuffle": False, "learning_rate": 2e-3, "adam_epsilon": 1e-6} | options, RUNS[1].data)
    module, model = pair(case)
    trained = copy.deepcopy(module)
    expected = train_all(trained, run)
    result = finetune(model, [run], micro_batch_tokens=70).runs[0]
    torch.testing.assert_close(losses(result), expected, rtol=0, atol=1e-4)
    assert result.adapter is None and result.model.num_parameters == model.num_parameters
    ids = torch.arange(60).view(3, 20)
    moved = (all_logits(trained, ids) - all_logits(module, ids)).abs().max()
    assert (result.model(ids) - all_logits(trained, ids)).abs().max() <= 1e-3 * moved


def test_muon_is_torchs_but_for_its_rounding() -> None:
    """torch.optim.Muon orthogonalises in bfloat16."""
    module, model = pair("biases")
    options = {"method": "full", "shuffle": False, "optimizer": "muon", "muon_learning_rate": 5e-3}
    run = Run(options | {"learning_rate": 2e-3}, RUNS[1].data)
    trained = copy.deepcopy(module)
    expected = train_all(trained, run, torch.optim.Muon)
    torch.testing.assert_close(losses(finetune(model, [run]).runs[0]), expected, rtol=0, atol=0.02)
