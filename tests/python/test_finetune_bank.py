"""Runs that train together on one base: each learns what it learns alone, and products of the base are shared."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import pytest
import torch

from finetune_cases import Run, assert_same_bits, finetune, first_factors, largest_difference, losses, sequences
from model_cases import CASES, make_module, pair, tokenizer
from op_recorder import OpRecorder
from titer import _titer, load_model

# A step of this plain descent moves every factor by its gradient.
DESCENT = {
    "adam_beta1": 0.0,
    "adam_beta2": 0.0,
    "adam_epsilon": 1e6,
    "learning_rate": 1e6,
    "lr_schedule": "constant",
    "max_grad_norm": 0.0,
}

# Different lengths, steps, ends and rates; one stops after its first step.
RAGGED = [
    Run({"seed": 0, "learning_rate": 1e-2}, sequences(20, 0)),
    Run({"seed": 1, "max_steps": 1}, sequences(4, 1)),
    Run({"seed": 2, "num_epochs": 4, "use_rslora": True, "lora_alpha": 3.0}, sequences(7, 2, (20, 60))),
    Run({"seed": 3, "max_steps": 20, "batch_size": 1, "lora_dropout": 0.2}, sequences(5, 3, (4, 9))),
    Run({"seed": 0, "learning_rate": 1e-3, "optimizer": "muon", "weight_decay": 0.1}, sequences(20, 0)),
]
STEPS = [7, 1, 12, 20, 7]
CASE = "grouped heads, tied"


@pytest.mark.parametrize("micro_batch_tokens", [1, 50, 10**6])
@pytest.mark.parametrize("case", [CASE, "biases", "gemma2", "phi3", "gpt2", "gpt_neox"])
def test_first_gradients_are_what_they_are_alone(case: str, micro_batch_tokens: int) -> None:
    model = pair(case).model
    runs = [Run(run.options | DESCENT | {"max_steps": 1, "optimizer": "adamw"}, run.data) for run in RAGGED]
    together = finetune(model, runs, micro_batch_tokens=micro_batch_tokens).runs
    for run, result in zip(runs, together, strict=True):
        alone = finetune(model, [run]).runs[0]
        assert largest_difference(result.adapter.modules, alone.adapter.modules) <= 1e-5
        assert result.steps[0].grad_norm == pytest.approx(alone.steps[0].grad_norm, rel=1e-5)
        first = first_factors(model, run)
        moved = torch.cat([(result.adapter.modules[name][1] - first[name][1]).flatten() for name in first])
        assert moved.norm().item() == pytest.approx(alone.steps[0].grad_norm, rel=1e-3), "the step shows the gradient"


@pytest.mark.parametrize("case", [CASE, "phi3", "gpt2"])
def test_second_gradients_are_what_they_are_alone(case: str) -> None:
    """The first that factors A have, as B begins with zeros."""
    model = pair(case).model
    runs = [
        Run(run.options | DESCENT | {"max_steps": 2, "optimizer": "adamw", "weight_decay": 0.0}, run.data)
        for run in RAGGED
    ]
    for run, result in zip(runs, finetune(model, runs).runs, strict=True):
        alone = finetune(model, [run]).runs[0]
        assert alone.steps[1].loss != alone.steps[0].loss
        size = max(float(factor.abs().max()) for factors in alone.adapter.modules.values() for factor in factors)
        assert largest_difference(result.adapter.modules, alone.adapter.modules) <= 1e-4 * size


@pytest.mark.parametrize("case", [CASE, "gemma3", "phi3", "gpt2", "gpt_neox"])
def test_ragged_runs_learn_what_they_learn_alone(case: str) -> None:
    model = pair(case).model
    together = finetune(model, RAGGED, micro_batch_tokens=200).runs
    assert [len(result.steps) for result in together] == STEPS
    for run, result in zip(RAGGED, together, strict=True):
        alone = finetune(model, [run]).runs[0]
        assert result.status == alone.status == "completed" and result.message == ""
        torch.testing.assert_close(losses(result), losses(alone), rtol=0, atol=1e-3)
        tokens = ["step", "learning_rate", "answer_tokens"]
        assert result.trace[tokens].equals(alone.trace[tokens])


def test_the_order_of_runs_changes_nothing() -> None:
    model = pair(CASE).model
    forward, backward = finetune(model, RAGGED).runs, finetune(model, RAGGED[::-1]).runs[::-1]
    for one, other in zip(forward, backward, strict=True):
        torch.testing.assert_close(losses(one), losses(other), rtol=0, atol=1e-4)


def test_the_same_run_twice_is_the_same() -> None:
    first, _, second = finetune(pair(CASE).model, [RAGGED[0], RAGGED[3], RAGGED[0]]).runs
    torch.testing.assert_close(losses(first), losses(second), rtol=0, atol=1e-5)
    assert largest_difference(first.adapter.modules, second.adapter.modules) <= 1e-4


def test_the_same_call_gives_the_same_bits() -> None:
    for one, other in zip(*(finetune(pair(CASE).model, RAGGED).runs for _ in range(2)), strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_size_of_micro_batches_changes_rounding_only(method: str) -> None:
    runs = [Run(run.options | {"method": method}, run.data) for run in RAGGED[:4]]
    results = [finetune(pair("biases").model, runs, micro_batch_tokens=size).runs for size in (1, 64, 10**6)]
    for one, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(losses(one), losses(other), rtol=0, atol=1e-4)


def test_progress_sees_every_step_of_every_run() -> None:
    seen: list[tuple[int, int, float]] = []
    totals = {}

    def progress(run: int, step: _titer.FinetuneStep, num_steps: int) -> None:
        seen.append((run, step.step, step.loss))
        totals[run] = num_steps

    other = Run({"lora_rank": 2}, sequences(3, 9))
    results = finetune(pair(CASE).model, [other, *RAGGED], progress=progress).runs
    assert [totals[run] for run in range(6)] == [1, *STEPS]
    for run, result in enumerate(results):
        assert [(step, loss) for k, step, loss in seen if k == run] == [(one.step, one.loss) for one in result.steps]


def test_cost_counts_sequences_and_the_tokens_that_are_computed() -> None:
    data = sequences(6, 4)
    cost = finetune(pair(CASE).model, [Run({"num_epochs": 3}, data), Run({"seed": 1}, data)]).cost
    rows = sum(answers[-1][1] - 1 for _, answers in data)  # none behind the last that predicts an answer
    assert (cost.queries, cost.tokens) == (4 * len(data), 4 * rows)


def products(case: str, num_runs: int) -> Counter[tuple[int, int]]:
    """Count the products with weights of the base in one step of one micro-batch, by the weights' shapes."""
    runs = [Run({"max_steps": 1, "seed": k}, sequences(3, k, (9, 9))) for k in range(num_runs)]
    with OpRecorder() as recorder:
        finetune(pair(case).model, runs)
    gemms = [call for call in recorder.calls if call.is_gemm]
    shapes = {tuple(parameter.shape) for parameter in pair(case).module.parameters() if parameter.dim() == 2}
    for call in gemms:
        assert not {call.output, call.output[::-1]} & shapes, "no gradient of a weight of the base is computed"
    sizes = [[tuple(argument) for argument in call.arguments if isinstance(argument, torch.Size)] for call in gemms]
    return Counter(max(one[-1], one[-1][::-1]) for one in sizes)


@pytest.mark.parametrize("case", [case for case in CASES if "window" not in case and "rope" not in case])
def test_a_product_of_the_base_serves_all_runs(case: str) -> None:
    assert products(case, 1) == products(case, 4)


def test_there_is_one_product_forward_and_one_back_per_layer() -> None:
    # Attention's four and the three of the MLP, in two layers, both ways; nothing is asked of the first layer's input.
    assert products(CASE, 4).total() == 2 * 7 * 2 - 3


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_base_stays_as_it_is(method: str) -> None:
    module = make_module(**CASES["biases"])
    model = load_model(module, tokenizer=tokenizer())
    learns = {name: bool(i % 2) for i, (name, _) in enumerate(module.named_parameters())}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(learns[name])
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    result = finetune(model, [Run({"method": method, "learning_rate": 1e-2}, sequences(6, 0))]).runs[0]
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.requires_grad == learns[name], name
        assert parameter.grad is None, name
    if method == "full":
        ids = torch.arange(20)[None]
        trained = result.model(ids)
        with torch.no_grad():
            module.get_input_embeddings().weight.zero_()
        assert torch.equal(result.model(ids), trained), "what was learned shares nothing with the base"


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_mode_of_the_caller_changes_nothing(mode: Any) -> None:
    expected = finetune(pair(CASE).model, RAGGED[:2]).runs
    with mode():
        results = finetune(pair(CASE).model, RAGGED[:2]).runs
    for one, other in zip(results, expected, strict=True):
        assert_same_bits(one, other)


# Dropout


def test_what_is_dropped_depends_on_the_run_alone() -> None:
    model = pair("phi3").model
    dropping = Run({"lora_dropout": 0.4, "seed": 5, "num_epochs": 3}, sequences(7, 5))
    alone = finetune(model, [dropping]).runs[0]
    others = [Run(run.options | {"lora_dropout": 0.1 * k}, run.data) for k, run in enumerate(RAGGED)]
    for micro_batch_tokens in (1, 60, 10**6):
        together = finetune(model, [*others, dropping], micro_batch_tokens=micro_batch_tokens).runs[-1]
        torch.testing.assert_close(losses(together), losses(alone), rtol=0, atol=1e-4)


def test_dropout_changes_losses_once_the_adapter_does_something() -> None:
    data = sequences(9, 5)
    plain, dropping, other = (
        losses(finetune(pair(CASE).model, [Run(options | {"shuffle": False, "max_steps": 3}, data)]).runs[0])
        for options in ({}, {"lora_dropout": 0.3}, {"lora_dropout": 0.6})
    )
    assert plain[0] == dropping[0] == other[0]
    assert len({losses[1] for losses in (plain, dropping, other)}) == 3


def descent_gradient(dropout: float, copies: int) -> torch.Tensor:
    """First gradient of the factors B, for copies of one sequence."""
    options = DESCENT | {"lora_dropout": dropout, "batch_size": copies, "shuffle": False, "max_steps": 1}
    adapter = finetune(pair(CASE).model, [Run(options, sequences(1, 6, (20, 20)) * copies)]).runs[0].adapter
    return torch.cat([b.flatten() for _, b in adapter.modules.values()])


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropout_preserves_means(dropout: float) -> None:
    """B is zero at first, so that its gradient is linear in what is dropped, and copies draw anew."""
    expected = descent_gradient(0.0, 1)
    # An input errs by sqrt(p / (1 - p)) of itself; how far that averages out within a sequence is not known.
    error = {
        copies: float((descent_gradient(dropout, copies) - expected).norm() / expected.norm()) for copies in (1, 400)
    }
    deviation = math.sqrt(dropout / (1 - dropout))
    assert 0.1 * deviation < error[1] < 2 * deviation
    assert 0.5 < error[1] / error[400] / 20 < 2


# Runs that diverge


@pytest.mark.parametrize("rate", [1e25, 1e30])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_run_that_diverges_stops_alone_and_says_so(at: int, rate: float) -> None:
    model = pair(CASE).model
    runs = [Run({"seed": k, "num_epochs": 2, "lr_schedule": "constant"}, sequences(6 + k, k)) for k in range(3)]
    healthy = finetune(model, runs).runs
    seen: list[tuple[int, int]] = []
    bad = Run(runs[at].options | {"learning_rate": rate}, runs[at].data)
    results = finetune(
        model, [*runs[:at], bad, *runs[at + 1 :]], progress=lambda run, step, _: seen.append((run, step.step))
    ).runs
    for k, (result, expected) in enumerate(zip(results, healthy, strict=True)):
        if k == at:
            continue
        assert result.status == "completed"
        torch.testing.assert_close(losses(result), losses(expected), rtol=0, atol=1e-5)
    assert results[at].status == "diverged" and len(results[at].steps) == 1
    assert f"run {at}: the loss of step 2 is not finite; lower its learning rate" in results[at].message
    assert [step for run, step in seen if run == at] == [1]
    first_step = Run(bad.options | {"max_steps": 1}, bad.data)
    kept = finetune(model, [*runs[:at], first_step, *runs[at + 1 :]]).runs[at].adapter.modules
    for name, factors in results[at].adapter.modules.items():
        torch.testing.assert_close(factors, kept[name], rtol=0, atol=0, equal_nan=True)


def test_weights_that_overflow_are_no_result() -> None:
    """A rate beyond float32 makes infinities of weights in the very step that it is taken in."""
    for steps in (1, 3):
        run = Run({"max_steps": steps, "learning_rate": 1e300, "lr_schedule": "constant"}, sequences(6, 0))
        result = finetune(pair(CASE).model, [run]).runs[0]
        assert result.status == "diverged" and result.adapter is None
        assert "the result of step 1 is not finite; lower its learning rate" in result.message


def test_a_full_run_that_diverges_stops_alone_and_says_so() -> None:
    bad = Run({"method": "full", "learning_rate": 1e30}, sequences(9, 0))
    healthy = Run({"method": "full"}, sequences(9, 0))
    first, second = finetune(pair(CASE).model, [bad, healthy]).runs
    assert first.status == "diverged" and len(first.steps) == 1
    assert re.search("run 0: the (loss|gradient) of step 2", first.message)
    assert second.status == "completed" and len(second.steps) == 3


def test_a_base_that_is_not_finite_is_found_in_the_first_step() -> None:
    module = make_module()
    with torch.no_grad():
        module.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    result = finetune(load_model(module, tokenizer=tokenizer()), [RAGGED[0]]).runs[0]
    assert result.status == "diverged" and "run 0: the loss of step 1" in result.message
    assert len(result.steps) == len(result.trace) == 0
    assert largest_difference(result.adapter.modules, first_factors(pair(CASE).model, RAGGED[0])) == 0
