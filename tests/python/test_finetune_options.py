"""What a fine-tuning run is asked for: rates over its steps, the order of its data, and what is refused."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from transformers import get_scheduler

import titer
from finetune_cases import Run, Sequences, finetune, losses, sequences
from model_cases import pair
from titer import _titer

ONE = sequences(1, 0, (6, 6))
STEPS = 12


@pytest.fixture(scope="module")
def model() -> titer.Model:
    return pair("grouped heads, tied").model


def rates(model: titer.Model, **options: Any) -> list[float]:
    run = Run({"max_steps": STEPS, "learning_rate": 0.5} | options, ONE)
    return [step.learning_rate for step in finetune(model, [run]).runs[0].steps]


@pytest.mark.parametrize("warmup_steps", [0, 1, 5, 11, 12, 40])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rates_are_those_of_transformers(model: titer.Model, schedule: str, warmup_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    peer = get_scheduler(name, optimizer, warmup_steps, STEPS)
    expected = []
    for _ in range(STEPS):
        expected.append(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()
    got = rates(model, lr_schedule=schedule, warmup_steps=warmup_steps)
    assert got == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("decay_start", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("warmup_steps", [0, 4])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_rates_stay_until_decay_starts_and_end_where_asked(
    model: titer.Model, schedule: str, warmup_steps: int, decay_start: float
) -> None:
    begin = max(warmup_steps, decay_start * STEPS)
    got = rates(model, lr_schedule=schedule, warmup_steps=warmup_steps, decay_start=decay_start, final_lr_ratio=0.1)
    for step, rate in enumerate(got):
        if step < warmup_steps:
            expected = step / warmup_steps
        else:
            gone = max(0.0, (step - begin) / (STEPS - begin))
            left = 1 - gone if schedule == "linear" else 0.5 + 0.5 * math.cos(math.pi * gone)
            expected = 0.1 + 0.9 * left
        assert rate == pytest.approx(0.5 * expected, rel=1e-12)


def test_a_step_of_rate_0_changes_nothing(model: titer.Model) -> None:
    warm = Run({"warmup_steps": 1, "weight_decay": 0.1, "optimizer": "muon", "shuffle": False}, ONE * 9)
    result = finetune(model, [warm]).runs[0]
    assert result.steps[0].learning_rate == 0
    assert result.steps[1].loss == result.steps[0].loss > result.steps[2].loss


# Data order

NUM_DATA = 11


def numbered() -> Sequences:
    """Sequence i has an answer of i + 1 tokens."""
    return [(list(range(5, 19)), [(1, 2 + i)]) for i in range(NUM_DATA)]


def order(model: titer.Model, **options: Any) -> list[int]:
    """Return what sequences the steps took."""
    run = Run({"batch_size": 1} | options, numbered())
    return [step.answer_tokens - 1 for step in finetune(model, [run]).runs[0].steps]


def epochs(taken: list[int]) -> list[list[int]]:
    return [taken[i : i + NUM_DATA] for i in range(0, len(taken), NUM_DATA)]


def test_every_epoch_takes_all_data_in_an_order_of_its_own(model: titer.Model) -> None:
    taken = epochs(order(model, num_epochs=4))
    assert len(taken) == 4 and all(sorted(epoch) == list(range(NUM_DATA)) for epoch in taken)
    assert len({tuple(epoch) for epoch in taken}) == 4


def test_the_order_depends_on_the_seed_alone(model: titer.Model) -> None:
    taken = order(model, num_epochs=2)
    for options in ({"learning_rate": 0.1}, {"lora_rank": 2}, {"lora_dropout": 0.5}, {"method": "full"}):
        assert order(model, num_epochs=2, **options) == taken
    assert order(model, num_epochs=3)[: 2 * NUM_DATA] == taken
    assert order(model, max_steps=17) == taken[:17]
    others = {tuple(order(model, seed=seed)) for seed in range(10)}
    assert len(others) == 10 and tuple(taken[:NUM_DATA]) in others


def test_data_comes_as_it_is_where_it_is_not_shuffled(model: titer.Model) -> None:
    assert order(model, shuffle=False, num_epochs=2) == [*range(NUM_DATA)] * 2
    assert order(model, shuffle=False, max_steps=NUM_DATA + 3) == [*range(NUM_DATA), 0, 1, 2]


@pytest.mark.parametrize("batch_size", [2, 4, 11, 100])
def test_batches_take_the_order_piece_by_piece(model: titer.Model, batch_size: int) -> None:
    one_by_one = epochs(order(model, num_epochs=2))
    run = Run({"batch_size": batch_size, "num_epochs": 2}, numbered())
    expected = [
        sum(i + 1 for i in epoch[first : first + batch_size])
        for epoch in one_by_one
        for first in range(0, NUM_DATA, batch_size)
    ]
    assert [step.answer_tokens for step in finetune(model, [run]).runs[0].steps] == expected


def test_every_place_of_an_order_is_as_likely(model: titer.Model) -> None:
    """Chi-squared of where the first of four sequences goes in 250 epochs: above 16.3 once in a thousand."""
    data = [([7, 8, 9], [(1, 3 if i == 0 else 2)]) for i in range(4)]
    run = Run({"batch_size": 1, "num_epochs": 250, "target_modules": ["layers.1.mlp.up_proj"]}, data)
    places = [(step.step - 1) % 4 for step in finetune(model, [run]).runs[0].steps if step.answer_tokens == 2]
    assert len(places) == 250
    assert sum((places.count(place) - 62.5) ** 2 / 62.5 for place in range(4)) < 16.3


# The loss


def test_the_loss_is_the_mean_over_the_answers_tokens(model: titer.Model) -> None:
    data = sequences(5, 8)
    result = finetune(model, [Run({"batch_size": 5, "learning_rate": 1e-9}, data)]).runs[0]
    values = []
    for ids, answers in data:
        log_probs = model(torch.tensor([ids]))[0].double().log_softmax(-1)
        values += [-log_probs[t - 1, ids[t]].item() for begin, end in answers for t in range(begin, end)]
    assert result.steps[0].answer_tokens == len(values)
    assert losses(result)[0] == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_gradients_are_shortened_to_what_is_asked(model: titer.Model) -> None:
    """Plain descent with no mean moves by the gradient: at most max_grad_norm times the rate."""
    still = {"adam_beta1": 0.0, "adam_beta2": 0.0, "adam_epsilon": 1e6, "learning_rate": 1e6}
    for limit in (1e-3, 0.1, 0.0, 1e3):
        result = finetune(model, [Run(still | {"max_grad_norm": limit}, ONE)]).runs[0]
        moved = torch.cat([b.flatten() for _, b in result.adapter.modules.values()]).norm().item()
        norm = result.steps[0].grad_norm
        assert norm > 0.2
        assert moved == pytest.approx(min(norm, limit) if limit else norm, rel=1e-3)


# Bad input

GOOD = ([5, 6, 7, 8], [(2, 4)])

BAD_DATA: dict[str, tuple[Any, type[Exception], str]] = {
    "no sequences": ([], ValueError, r"run 1 has no data"),
    "no answer": ([GOOD, ([5, 6], [])], ValueError, r"run 1, sequence 1 has no answer to learn"),
    "no tokens": ([([], [(0, 0)])], ValueError, r"run 1, sequence 0: the answer \[0, 0\)"),
    "an empty answer": (
        [([5, 6, 7], [(2, 2)])],
        ValueError,
        r"run 1, sequence 0: the answer \[2, 2\) must hold a token",
    ),
    "backwards": ([([5, 6, 7], [(2, 1)])], ValueError, r"the answer \[2, 1\) must hold a token"),
    "from the first token": ([([5, 6], [(0, 2)])], ValueError, r"\[0, 2\) must hold a token, begin at 1 or later"),
    "before the first token": ([([5, 6], [(-1, 2)])], ValueError, r"\[-1, 2\).* begin at 1 or later"),
    "behind the end": ([GOOD, GOOD, ([5, 6], [(1, 3)])], ValueError, r"sequence 2: .* end within the 2 tokens"),
    "far behind the end": ([([5, 6], [(1, 2**62)])], ValueError, r"end within the 2 tokens"),
    "overlapping": ([([5] * 9, [(1, 4), (3, 6)])], ValueError, r"\[3, 6\) must hold a token, begin at 4 or later"),
    "out of order": ([([5] * 9, [(5, 6), (1, 2)])], ValueError, r"\[1, 2\) must hold a token, begin at 6 or later"),
    "an id too large": ([([5, 320, 7], [(2, 3)])], IndexError, r"run 1, sequence 0: token id 320 .* vocabulary of 320"),
    "an id below 0": ([([5, 6, -1], [(1, 2)])], IndexError, r"run 1, sequence 0: token id -1 is outside"),
    "too long": (
        [([5] * 513, [(1, 2)])],
        ValueError,
        r"has 513 tokens, the model takes at most 512: .*cut; shorten it",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused_by_run_and_sequence_before_anything_is_trained(model: titer.Model, case: str) -> None:
    data, error, message = BAD_DATA[case]
    steps: list[Any] = []
    with pytest.raises(error, match=message) as caught:
        finetune(model, [Run({}, [GOOD]), Run({}, data)], progress=lambda *step: steps.append(step))
    assert str(caught.value).startswith("[finetune] ") and not steps


@pytest.mark.parametrize("data", [[GOOD[0]], [(["a"], [])], [([5.5, 6], [(1, 2)])], [([2**70, 6], [(1, 2)])], None, 3])
def test_data_of_another_type_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match="incompatible"):
        _titer.TrainingData(data)


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "rate 0": ({"learning_rate": 0.0}, r"learning_rate must be greater than 0, got 0"),
    "rate below 0": ({"learning_rate": -1.0}, r"learning_rate must be greater than 0, got -1"),
    "rate NaN": ({"learning_rate": math.nan}, r"learning_rate .*nan"),
    "rate infinite": ({"learning_rate": math.inf}, r"learning_rate .*inf"),
    "Muon's rate": ({"muon_learning_rate": 0.0}, r"muon_learning_rate must be greater than 0"),
    "Muon's momentum": ({"muon_momentum": 1.0}, r"muon_momentum must be .*less than 1"),
    "rank 0": ({"lora_rank": 0}, r"lora_rank must be at least 1, got 0"),
    "alpha 0": ({"lora_alpha": 0.0}, r"lora_alpha must be greater than 0"),
    "dropout 1": ({"lora_dropout": 1.0}, r"lora_dropout must be .*less than 1"),
    "dropout below 0": ({"lora_dropout": -0.1}, r"lora_dropout must be at least 0"),
    "batches beyond 32 bits": ({"batch_size": sys.maxsize}, r"batch_size must be between 1 and 4294967295"),
    "batches of 0": ({"batch_size": 0}, r"batch_size must be between 1 and 4294967295, got 0"),
    "no epochs": ({"num_epochs": 0}, r"num_epochs must be between 1 and"),
    "no steps": ({"max_steps": 0}, r"max_steps must be between 1 and"),
    "decay": ({"weight_decay": -0.1}, r"weight_decay must be at least 0"),
    "betas": ({"adam_beta1": 1.0}, r"adam_beta1 must be .*less than 1"),
    "epsilon": ({"adam_epsilon": 0.0}, r"adam_epsilon must be greater than 0"),
    "clipping": ({"max_grad_norm": -1.0}, r"max_grad_norm must be at least 0"),
    "warm-up": ({"warmup_steps": -1}, r"warmup_steps must be at least 0"),
    "decay start": ({"decay_start": 1.0}, r"decay_start must be .*less than 1"),
    "final ratio": ({"final_lr_ratio": 1.5}, r"final_lr_ratio must be .*1"),
    "seed": ({"seed": -1}, r"seed must be at least 0"),
    "method": ({"method": "qlora"}, r"method must be one of lora, full, got 'qlora'"),
    "schedule": ({"lr_schedule": "poly"}, r"lr_schedule must be one of constant, linear, cosine, got 'poly'"),
    "an unknown option": ({"lr": 1e-3}, r"'lr'"),
    "a misspelled option": ({"learning_rat": 1e-3}, r"'learning_rat'.*did you mean 'learning_rate'"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_refused_by_name(case: str) -> None:
    options, message = BAD_OPTIONS[case]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        _titer.FinetuneOptions(**options)
    assert str(caught.value).startswith("[")


BAD_LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "rank over the layer's size": (
        {"lora_rank": 33},
        r"run 1: lora_rank 33 is over the size of '.*q_proj'.*at most 32",
    ),
    "rank over the narrowest layer": (
        {"lora_rank": 20, "target_modules": ["up_proj", "k_proj"]},
        r"lora_rank 20 is over the size of 'model.layers.0.self_attn.k_proj', \[16, 32\]; take at most 16",
    ),
    "an unknown module": (
        {"target_modules": ["q_proj", "c_attn"]},
        r"target_modules: 'c_attn' names no linear layer of this llama model; its layers have q_proj, .*, down_proj$",
    ),
    "the head": ({"target_modules": ["lm_head"]}, r"target_modules: 'lm_head' names no linear layer"),
    "the end of a name": ({"target_modules": ["proj"]}, r"'proj' names no linear layer"),
    "an empty name": ({"target_modules": [""]}, r"'' names no linear layer"),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_layers_that_cannot_be_adapted_are_refused_before_anything_is_trained(model: titer.Model, case: str) -> None:
    options, message = BAD_LAYERS[case]
    steps: list[Any] = []
    with pytest.raises(ValueError, match=message):
        finetune(model, [Run({}, [GOOD]), Run(options, [GOOD])], progress=lambda *step: steps.append(step))
    assert not steps


@pytest.mark.parametrize("micro_batch_tokens", [0, -5])
def test_micro_batches_without_tokens_are_refused(model: titer.Model, micro_batch_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"micro_batch_tokens must be at least 1, got {micro_batch_tokens}"):
        finetune(model, [Run({}, [GOOD])], micro_batch_tokens=micro_batch_tokens)


def test_no_runs_are_refused(model: titer.Model) -> None:
    with pytest.raises(ValueError, match=r"\[finetune\] expected at least one run"):
        finetune(model, [])


def test_more_steps_than_can_be_counted_are_refused(model: titer.Model) -> None:
    with pytest.raises(ValueError, match="num_epochs"):
        finetune(model, [Run({"num_epochs": 2**62}, [GOOD] * 9)], progress=lambda *_: False)


def test_two_tokens_are_enough(model: titer.Model) -> None:
    assert len(finetune(model, [Run({}, [([5, 6], [(1, 2)])])]).runs[0].steps) == 1


def test_a_sequence_as_long_as_the_context_is_learned(model: titer.Model) -> None:
    assert finetune(model, [Run({}, [([5] * 512, [(511, 512)])])]).runs[0].status == "completed"
