"""Scores of slot variants equal a padded forward pass of transformers, whatever is shared, packed or reused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import titer
from model_cases import CASES, VOCABULARY, make_module, pair, random_slots, tokenizer
from transformers_oracle import OBJECTIVES, Objective, score

TOLERANCE = 1e-4  # nats, and logits for carlini_wagner


# The first text holds the slot; the shapes name what is special about the four spans.
SHAPES: dict[str, dict[str, Any]] = {
    "suffix": {"text": "Tell me about the town: {slot}", "target": " Sure, here"},
    "prefix": {"text": "{slot} the capital of the country?\n", "target": "Sure, here"},
    "infix": {"text": "Tell me about {slot} the town. Answer:\n", "target": "Sure, here is"},
    "prefix after bos": {"text": "{slot} the capital?\n", "target": "Sure", "bos": True},
    "infix after bos": {"text": "What is {slot} in 1987?\n", "target": "Sure, here", "bos": True},
    "slot of one token": {"text": "Tell me {slot} now:\n", "target": "Sure, here", "initial": "x"},
    "target of one token": {"text": "Tell me {slot} now:", "target": " x"},
    "slot and target of one token, nothing else": {"text": "{slot}", "target": " x", "initial": "x"},
    "long target": {"text": "Tell me {slot} now:\n", "target": "I can't help with that, but I'll tell you"},
}


def open_prompt(shape: str) -> titer.Prompt:
    arguments = {"initial": "x x x x x x"} | SHAPES[shape]
    return titer.Prompt.from_text(tokenizer(bos=arguments.pop("bos", False)), **arguments)


def assert_equal_transformers(
    case: str, session: titer.Session, candidates: torch.Tensor, objective: Objective | None = None
) -> None:
    losses, match = session.score(candidates, **(objective or {}))
    expected, expected_match = score(pair(case).module, session.prompt, candidates, **(objective or {}))
    assert losses.dtype == torch.float32 and losses.shape == (len(candidates),)
    assert (losses - expected).abs().max() <= TOLERANCE
    assert torch.equal(match, expected_match)


def test_shapes_are_what_their_names_say() -> None:
    prompts = {shape: open_prompt(shape) for shape in SHAPES}
    assert prompts["suffix"].after_ids == prompts["slot and target of one token, nothing else"].after_ids == []
    assert prompts["prefix"].before_ids == prompts["slot and target of one token, nothing else"].before_ids == []
    assert prompts["prefix after bos"].before_ids == [1]
    assert prompts["infix after bos"].before_ids[0] == 1 and len(prompts["infix after bos"].before_ids) > 1
    assert len(prompts["slot of one token"].slot_ids) == 1
    assert len(prompts["target of one token"].target_ids) == 1
    assert len(prompts["slot and target of one token, nothing else"]) == 2
    assert len(prompts["suffix"].slot_ids) == 6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_losses_equal_transformers(case: str, shape: str) -> None:
    prompt = open_prompt(shape)
    session = titer.CandidateScorer(pair(case).model, prompt)
    width = len(prompt.slot_ids)
    for changes in range(1, min(4, width) + 1):
        assert_equal_transformers(case, session, random_slots(prompt, 12, changes, seed=changes))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective["loss"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_objective_equals_transformers_and_the_reference(shape: str, objective: Objective) -> None:
    for case in ("grouped heads, tied", "biases", "mistral, window of 8"):
        prompt = open_prompt(shape)
        slots = random_slots(prompt, 10, 1, seed=3)
        session = titer.CandidateScorer(pair(case).model, prompt)
        assert_equal_transformers(case, session, slots, objective)
        reference = titer.ReferenceScorer(pair(case).model, prompt)
        assert_equal_transformers(case, reference, slots, objective)


@settings(deadline=None, max_examples=60)
@given(
    case=st.sampled_from(list(CASES)),
    shape=st.sampled_from(list(SHAPES)),
    objective=st.sampled_from(OBJECTIVES),
    batch_size=st.sampled_from([None, 1, 3, 7]),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_losses_equal_transformers_after_any_history(
    case: str, shape: str, objective: Objective, batch_size: int | None, seed: int, data: st.DataObject
) -> None:
    """Bases move, gradients are taken, candidates repeat; the scores must not notice."""
    prompt = open_prompt(shape)
    model = pair(case).model
    session = titer.CandidateScorer(model, prompt, batch_size=batch_size)
    for round_ in range(data.draw(st.integers(1, 3))):
        changes = data.draw(st.integers(1, len(prompt.slot_ids)))
        slots = random_slots(prompt, data.draw(st.integers(1, 9)), changes, seed + round_)
        move = data.draw(st.sampled_from(["stay", "rebase", "gradient", "score"]))
        if move == "rebase":
            session.rebase(slots[0])
        elif move == "gradient":
            session.token_gradient(slots[-1])
        elif move == "score":
            session.losses(random_slots(prompt, 4, 1, seed - 1))
        order = data.draw(st.lists(st.integers(0, len(slots) - 1), min_size=1, max_size=12))
        assert_equal_transformers(case, session, slots[order], objective)


@pytest.mark.parametrize("case", ["grouped heads, tied", "mistral, window of 8", "dynamic rope beyond its context"])
def test_every_single_position_is_exact(case: str) -> None:
    """Also the last token of the slot, before which everything is reused, and the base itself."""
    prompt = open_prompt("infix")
    base = torch.tensor(prompt.slot_ids)
    slots = torch.stack([base, *(base.scatter(0, torch.tensor([i]), 100 + i) for i in range(len(base)))])
    assert_equal_transformers(case, titer.CandidateScorer(pair(case).model, prompt), slots)
    assert_equal_transformers(case, titer.CandidateScorer(pair(case).model, prompt), slots.flip(0))


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 1000])
def test_more_candidates_than_a_block(batch_size: int | None) -> None:
    prompt = open_prompt("infix")
    rows = len(prompt) - len(prompt.before_ids)
    slots = torch.cat([random_slots(prompt, 60, changes, seed=changes) for changes in (1, 2, 4)])
    assert len(slots) * rows > 2 * 1024
    case = "grouped heads, tied"
    session = titer.CandidateScorer(pair(case).model, prompt, batch_size=batch_size)
    assert_equal_transformers(case, session, slots)


def test_duplicates_get_equal_bits() -> None:
    prompt = open_prompt("suffix")
    slots = random_slots(prompt, 40, 2, seed=9)
    session = titer.CandidateScorer(pair("biases").model, prompt)
    repeated = session.losses(torch.cat([slots, slots.flip(0), slots[:1].repeat(30, 1)]))
    assert torch.equal(repeated[:40], repeated[40:80].flip(0))
    assert (repeated[80:] == repeated[0]).all()


def test_order_and_company_change_losses_by_rounding_only() -> None:
    prompt = open_prompt("infix")
    slots = random_slots(prompt, 90, 1, seed=2)
    session = titer.CandidateScorer(pair("llama3 rope").model, prompt)
    together = session.losses(slots)
    assert torch.equal(together, session.losses(slots))
    permutation = torch.randperm(len(slots), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(session.losses(slots[permutation]), together[permutation], rtol=1e-5, atol=0)
    alone = torch.cat([session.losses(row[None]) for row in slots])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=0)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_match_is_what_greedy_decoding_says(length: int) -> None:
    """A target made of the model's own greedy answer to one slot matches there, and not everywhere."""
    model = pair("biases").model
    prompt = open_prompt("infix")
    slots = random_slots(prompt, 200, 3, seed=5)
    for number, slot in enumerate(slots.tolist()):  # noqa: B007 (used after the loop)
        answer: list[int] = []
        for _ in range(length):
            ids = torch.tensor([prompt.before_ids + slot + prompt.after_ids + answer])
            answer.append(int(model(ids)[0, -1].argmax()))
        try:
            own = titer.Prompt.from_text(
                model.tokenizer, SHAPES["infix"]["text"], model.tokenizer.decode(answer), initial="x x x x x x"
            )
        except ValueError:
            continue  # the answer's text merges with what stands before it
        if own.target_ids == answer:
            break
    else:
        pytest.fail("no slot whose greedy answer can be a target")
    session = titer.CandidateScorer(model, own)
    assert_equal_transformers("biases", session, slots)
    _, match = session.score(slots)
    assert match[number] and not match.all()


def test_no_candidates_have_no_losses() -> None:
    prompt = open_prompt("infix")
    for kind in (titer.CandidateScorer, titer.ReferenceScorer):
        assert kind(pair("biases").model, prompt).losses(torch.empty(0, 6, dtype=torch.int64)).shape == (0,)


def test_candidates_of_any_strides() -> None:
    prompt = open_prompt("infix")
    slots = random_slots(prompt, 12, 2, seed=8)
    session = titer.CandidateScorer(pair("biases").model, prompt)
    assert torch.equal(session.losses(slots.t().contiguous().t()), session.losses(slots))
    assert torch.equal(session.losses(slots.repeat(1, 2)[:, 6:]), session.losses(slots))
    wide = torch.stack([slots, slots + 1], -1)[..., 0]
    assert torch.equal(session.losses(wide), session.losses(slots))


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "olmo2", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_types_err_no_more_than_transformers(model_type: str, dtype: torch.dtype) -> None:
    """Over several models: the slots of one share most of their rounding."""
    prompt = open_prompt("infix")
    slots = random_slots(prompt, 100, 2, seed=1)
    for objective in OBJECTIVES:
        ours, theirs = [], []
        for seed in range(6):
            narrow = make_module(seed=seed, model_type=model_type, num_hidden_layers=3).to(dtype)
            wide = make_module(seed=seed, model_type=model_type, num_hidden_layers=3).to(dtype).to(torch.float32)
            session = titer.CandidateScorer(titer.load_model(narrow, tokenizer=tokenizer()), prompt)
            exact = score(wide, prompt, slots, **objective)[0]
            theirs.append((score(narrow, prompt, slots, **objective)[0] - exact).abs())
            ours.append((session.score(slots, **objective)[0] - exact).abs())
        assert torch.cat(ours).mean() <= 1.25 * torch.cat(theirs).mean()
        assert torch.cat(ours).max() <= 2 * torch.cat(theirs).max()


@pytest.mark.parametrize("kind", [titer.CandidateScorer, titer.ReferenceScorer])
@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        (torch.zeros(2, 5, dtype=torch.int64), ValueError, r"shape \[B, 6\].*got \[2, 5\]"),
        (torch.zeros(6, dtype=torch.int64), ValueError, r"shape \[B, 6\]"),
        (torch.zeros(2, 6, dtype=torch.int32), TypeError, "int64, got Int"),
        (torch.zeros(2, 6), TypeError, "int64, got Float"),
        (torch.full((2, 6), VOCABULARY), IndexError, "token id 320 is outside the vocabulary of 320"),
        (torch.full((2, 6), -1), IndexError, "token id -1"),
    ],
)
def test_bad_candidates_are_refused_by_name(
    kind: Any, candidates: torch.Tensor, error: type[Exception], message: str
) -> None:
    prompt = open_prompt("infix")
    session = kind(pair("biases").model, prompt)
    with pytest.raises(error, match=message):
        session.losses(candidates)
    assert_equal_transformers("biases", session, random_slots(prompt, 3, 1, seed=0))


@pytest.mark.parametrize("kind", [titer.CandidateScorer, titer.ReferenceScorer])
@pytest.mark.parametrize("convert", [list, tuple, np.array])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_ids_may_be_sequences(kind: Any, convert: Any, device: str) -> None:
    prompt = open_prompt("infix")
    slots = random_slots(prompt, 3, 1, seed=0)
    rows = convert([convert(row.tolist()) for row in slots])
    session, same = kind(pair("biases").model, prompt), kind(pair("biases").model, prompt)
    with torch.device(device):  # the default device
        assert torch.equal(session.losses(rows), same.losses(slots))
        assert torch.equal(session.score(rows)[0], same.score(slots)[0])
        assert torch.equal(session.token_gradient(rows[1]), same.token_gradient(slots[1]))
        session.rebase(rows[2])
        same.rebase(slots[2])
        assert torch.equal(session.losses(rows), same.losses(slots))


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        ([[1, 2, 3, 4, 5, 6], [1]], ValueError, "must be an int64 tensor or lists of int, got <class 'list'>"),
        ([[1.0, 2, 3, 4, 5, 6]], TypeError, "int64, got Float"),
        (["x x x x x x"], (TypeError, ValueError), "token ids must be"),
        ("x x x x x x", TypeError, "token ids must be an int64 tensor or lists of int, got <class 'str'>"),
        (None, TypeError, "token ids must be"),
        ([[2**70] * 6], (TypeError, ValueError), "token ids must be"),
        ([], ValueError, r"shape \[B, 6\]"),
        ([[VOCABULARY] * 6], IndexError, "token id 320 is outside the vocabulary of 320"),
    ],
)
def test_sequences_that_are_no_ids_are_refused(candidates: Any, error: type[Exception], message: str) -> None:
    session = titer.CandidateScorer(pair("biases").model, open_prompt("infix"))
    for call in (session.losses, session.score):
        with pytest.raises(error, match=message):
            call(candidates)


@pytest.mark.parametrize(
    ("slot", "error", "message"),
    [
        (torch.zeros(5, dtype=torch.int64), ValueError, r"shape \[6\].*got \[5\]"),
        (torch.zeros(1, 6, dtype=torch.int64), ValueError, r"shape \[6\]"),
        (torch.zeros(6), TypeError, "int64"),
        (torch.full((6,), VOCABULARY), IndexError, "token id 320"),
    ],
)
def test_bad_slots_are_refused_by_name(slot: torch.Tensor, error: type[Exception], message: str) -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair("biases").model, prompt)
    for call in (session.rebase, session.token_gradient):
        with pytest.raises(error, match=message):
            call(slot)
    assert_equal_transformers("biases", session, random_slots(prompt, 3, 1, seed=0))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"loss": "hinge"}, r"\[session\] loss must be one of cross_entropy, mellowmax, carlini_wagner, got 'hinge'"),
        ({"loss": "mellowmax", "mellowmax_alpha": 0.0}, "mellowmax_alpha must be greater than 0"),
        ({"loss": "mellowmax", "mellowmax_alpha": float("nan")}, "mellowmax_alpha"),
        ({"loss": "carlini_wagner", "cw_margin": -1.0}, "cw_margin must be at least 0"),
    ],
)
def test_bad_objectives_are_refused_by_name(objective: Objective, message: str) -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair("biases").model, prompt)
    with pytest.raises(ValueError, match=message):
        session.score(random_slots(prompt, 1, 1, seed=0), **objective)


def test_prompts_that_do_not_fit_are_refused() -> None:
    prompt = open_prompt("infix")
    short = titer.load_model(make_module(max_position_embeddings=len(prompt) - 1), tokenizer=tokenizer())
    small = titer.load_model(make_module(vocab_size=max(prompt.before_ids)), tokenizer=tokenizer())
    for kind in (titer.CandidateScorer, titer.ReferenceScorer, lambda model, prompt: titer.System(model).open(prompt)):
        with pytest.raises(ValueError, match=f"{len(prompt)} tokens, the model takes at most {len(prompt) - 1}"):
            kind(short, prompt)
        with pytest.raises(IndexError, match=f"token id {max(prompt.before_ids)} is outside the vocabulary"):
            kind(small, prompt)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        titer.CandidateScorer(pair("biases").model, prompt, batch_size=0)
    exact = titer.load_model(make_module(max_position_embeddings=len(prompt)), tokenizer=tokenizer())
    titer.CandidateScorer(exact, prompt)
