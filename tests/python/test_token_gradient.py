"""The token gradient equals autograd through an explicit one-hot, and costs no weight gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import titer
from model_cases import CASES, make_module, pair, random_slots, tokenizer
from op_recorder import OpRecorder
from test_scorer import SHAPES, open_prompt
from titer.chat import ChatTemplate
from transformers_oracle import OBJECTIVES, Objective, score, token_gradient


def assert_gradients_equal(ours: torch.Tensor, expected: torch.Tensor) -> None:
    assert ours.dtype == torch.float32 and ours.shape == expected.shape
    # Both round: of these models, either differs from the gradient in float64 by up to 1.2e-5.
    assert (ours - expected).abs().max() <= 2e-5 * max(1.0, expected.abs().max())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective["loss"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_gradient_equals_autograd_through_a_one_hot(case: str, shape: str, objective: Objective) -> None:
    prompt = open_prompt(shape)
    module, model = pair(case)
    session = titer.CandidateScorer(model, prompt)
    for slot in random_slots(prompt, 2, 1, seed=6):
        expected = token_gradient(module, prompt, slot, **objective)
        assert_gradients_equal(session.token_gradient(slot, **objective), expected)
        assert_gradients_equal(titer.ReferenceScorer(model, prompt).token_gradient(slot, **objective), expected)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective["loss"])
@pytest.mark.parametrize("case", CASES)
def test_token_gradient_is_the_embedding_gradient_times_the_embedding(case: str, objective: Objective) -> None:
    prompt = open_prompt("infix")
    module, model = pair(case)
    slot = random_slots(prompt, 2, 1, seed=6)[1]
    expected = token_gradient(module, prompt, slot, **objective)
    weight = module.get_input_embeddings().weight.detach()
    for session in (titer.CandidateScorer(model, prompt), titer.ReferenceScorer(model, prompt)):
        assert_gradients_equal(session.embedding_gradient(slot, **objective) @ weight.T, expected)


@pytest.mark.parametrize("scorer", [titer.CandidateScorer, titer.ReferenceScorer])
@pytest.mark.parametrize("k", [1, 20, 1000])
def test_promising_tokens_have_the_lowest_allowed_gradient(scorer: type[titer.Session], k: int) -> None:
    prompt = open_prompt("infix")
    module, model = pair("biases")
    gradient = torch.randn(len(prompt.slot_ids), module.config.hidden_size, generator=torch.Generator().manual_seed(0))
    scores = gradient.double() @ module.get_input_embeddings().weight.detach().double().T
    allowed = torch.rand(scores.shape[1] - 3, generator=torch.Generator().manual_seed(1)) < 0.5
    tokens = scorer(model, prompt).promising_tokens(gradient, allowed, k)
    permitted = torch.cat([allowed, torch.zeros(3, dtype=torch.bool)])  # ids behind the flags are not allowed
    kept = min(k, int(allowed.sum()))
    expected = scores.masked_fill(~permitted, torch.inf).sort(1)
    assert tokens.shape == (len(prompt.slot_ids), kept)
    assert (scores.gather(1, tokens) - expected.values[:, :kept]).abs().max() <= 1e-4  # near ties may change places
    assert permitted[tokens].all() and all(len(set(row)) == kept for row in tokens.tolist())
    beyond = torch.cat([permitted, torch.ones(5, dtype=torch.bool)])  # flags behind the vocabulary count for nothing
    assert torch.equal(scorer(model, prompt).promising_tokens(gradient, beyond, k), tokens)
    assert scorer(model, prompt).promising_tokens(gradient, torch.zeros(7, dtype=torch.bool), k).shape[1] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_promising_tokens_of_narrow_models_do_not_depend_on_the_scale(dtype: torch.dtype) -> None:
    prompt = open_prompt("infix")
    module = make_module(seed=3).to(dtype)
    session = titer.CandidateScorer(titer.load_model(module, tokenizer=tokenizer()), prompt)
    gradient = session.embedding_gradient(prompt.slot_ids)
    allowed = torch.ones(session.token_gradient(prompt.slot_ids).shape[1], dtype=torch.bool)
    tokens = session.promising_tokens(gradient, allowed, 20)
    for scale in (2.0**-40, 2.0**40):
        assert torch.equal(session.promising_tokens(scale * gradient, allowed, 20), tokens)
    scores = gradient.double() @ module.get_input_embeddings().weight.detach().double().T
    chosen = scores.gather(1, tokens).sort(1).values
    assert (chosen - scores.sort(1).values[:, :20]).abs().max() <= 2e-2 * scores.abs().max()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gradient": torch.zeros(3, 4)}, ValueError, r"must have shape \[6, 32\], got \[3, 4\]"),
        ({"gradient": torch.zeros(6, 32, dtype=torch.long)}, TypeError, "floating point"),
        ({"gradient": torch.full((6, 32), torch.nan)}, ValueError, "not finite"),
        ({"allowed": torch.ones(300)}, TypeError, "must be bool"),
        ({"allowed": torch.ones(3, 3, dtype=torch.bool)}, ValueError, "one dimension"),
        ({"k": 0}, ValueError, "k must be at least 1"),
    ],
)
def test_promising_tokens_say_what_is_wrong(change: dict[str, object], error: type[Exception], message: str) -> None:
    session = titer.CandidateScorer(pair("biases").model, open_prompt("infix"))
    sound = {"gradient": torch.zeros(6, 32), "allowed": torch.ones(300, dtype=torch.bool), "k": 3}
    assert session.promising_tokens(**sound).tolist() == [[0, 1, 2]] * 6  # equal ones by id
    with pytest.raises(error, match=message):
        session.promising_tokens(**(sound | change))


def test_gradient_predicts_the_loss_of_a_small_step() -> None:
    """An oracle without autograd: finite differences in float64."""
    module = make_module(seed=2).double()
    prompt = open_prompt("infix")
    gradient = titer.CandidateScorer(titer.load_model(module, tokenizer=tokenizer()), prompt).token_gradient(
        torch.tensor(prompt.slot_ids)
    )
    weight = module.get_input_embeddings().weight
    slots = weight[torch.tensor(prompt.slot_ids)].detach()

    def loss(embeddings: torch.Tensor) -> float:
        embed = module.get_input_embeddings()
        whole = torch.cat([embed(torch.tensor(prompt.before_ids)), embeddings, embed(torch.tensor(prompt.after_ids)),
                           embed(torch.tensor(prompt.target_ids))])  # fmt: skip
        logits = module(inputs_embeds=whole[None]).logits[0, -len(prompt.target_ids) - 1 : -1]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(prompt.target_ids)).item()

    with torch.no_grad():
        for position, token in [(0, 5), (3, 200), (5, 77)]:
            step = torch.zeros_like(slots)
            step[position] = 1e-4 * weight[token]
            measured = (loss(slots + step) - loss(slots - step)) / 2e-4
            # transformers normalises in float32 whatever the dtype
            assert gradient[position, token].item() == pytest.approx(measured, rel=1e-2, abs=1e-3)


def test_gradient_rebases_the_session() -> None:
    prompt = open_prompt("infix")
    module, model = pair("llama3 rope")
    session = titer.CandidateScorer(model, prompt)
    slots = random_slots(prompt, 5, 3, seed=4)
    session.token_gradient(slots[0])
    near = slots[0].repeat(6, 1).scatter(1, torch.arange(6)[:, None], 50)
    assert (session.losses(near) - score(module, prompt, near)[0]).abs().max() <= 1e-4
    again = titer.CandidateScorer(model, prompt)
    again.rebase(slots[0])
    assert torch.equal(again.token_gradient(slots[0]), session.token_gradient(slots[0]))


def test_gradient_does_not_depend_on_the_base_before() -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair("biases").model, prompt)
    slot, other = random_slots(prompt, 2, 6, seed=1)
    fresh = session.token_gradient(slot)
    session.token_gradient(other)
    session.losses(random_slots(prompt, 50, 2, seed=2))
    assert torch.equal(session.token_gradient(slot), fresh)


def test_bfloat16_gradient_errs_no_more_than_transformers() -> None:
    narrow = make_module(seed=3, num_hidden_layers=3).to(torch.bfloat16)
    wide = make_module(seed=3, num_hidden_layers=3).to(torch.bfloat16).to(torch.float32)
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(titer.load_model(narrow, tokenizer=tokenizer()), prompt)
    for slot in random_slots(prompt, 3, 2, seed=1):
        exact = token_gradient(wide, prompt, slot)
        theirs = (token_gradient(narrow, prompt, slot) - exact).norm() / exact.norm()
        ours = (session.token_gradient(slot) - exact).norm() / exact.norm()
        assert ours <= 1.25 * theirs


def weight_gradient_gemms(recorder: OpRecorder, weights: set[tuple[int, ...]]) -> list[str]:
    """Matrix products whose result has the shape of a weight, either way round, or that were asked for d weight."""
    found = []
    for call in recorder.calls:
        if call.is_gemm and (call.output in weights or call.output[::-1] in weights):
            found.append(str(call))
        if call.name == "titer::linear_cross_entropy_backward" and call.arguments[-1][1]:
            found.append(str(call))
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_an_attack_runs_no_weight_gradient_gemm(tied: bool, trainable: bool) -> None:
    # No number of rows of this prompt is one of these sizes, so a shape tells what was computed.
    module = make_module(hidden_size=96, intermediate_size=160, tie_word_embeddings=tied, attention_bias=True)
    module.requires_grad_(trainable)
    weights = {tuple(p.shape) for p in module.parameters() if p.dim() == 2}
    prompt = open_prompt("infix")
    model = titer.load_model(module, tokenizer=tokenizer())
    with OpRecorder() as recorder:
        session = titer.CandidateScorer(model, prompt)
        for objective in OBJECTIVES:
            session.token_gradient(torch.tensor(prompt.slot_ids), **objective)
            session.score(random_slots(prompt, 20, 1, seed=0), **objective)
    assert sum(call.is_gemm for call in recorder.calls) > 3 * 14 * 2  # forward and backward were seen
    assert any(call.name == "titer::linear_cross_entropy_backward" for call in recorder.calls)
    assert weight_gradient_gemms(recorder, weights) == []


def test_the_count_sees_weight_gradients() -> None:
    """The same count on transformers with trainable weights, where every linear layer has one."""
    module = make_module(hidden_size=96, intermediate_size=160).requires_grad_(True)
    weights = {tuple(p.shape) for p in module.parameters() if p.dim() == 2}
    with OpRecorder() as recorder:
        module(torch.arange(3, 40)[None]).logits.sum().backward()
    assert len(weight_gradient_gemms(recorder, weights)) == 2 * 7 + 1
    hidden, weight = torch.randn(5, 96, requires_grad=True), torch.randn(320, 96, requires_grad=True)
    with OpRecorder() as recorder:
        torch.ops.titer.linear_cross_entropy(hidden, weight, torch.arange(5))[0].sum().backward()
    assert len(weight_gradient_gemms(recorder, weights)) == 1


def test_smollm2_scores_and_gradient_equal_transformers(smollm2_folder: Path, smollm2_module: torch.nn.Module) -> None:
    model = titer.load_model(smollm2_module, tokenizer=smollm2_folder / "tokenizer.json")
    model.chat_template = ChatTemplate.from_folder(smollm2_folder)
    prompt = titer.Prompt.from_chat(model, "Tell me about Saturn. {slot}", target="NO WAY", initial="x x x x x x x x")
    session = titer.CandidateScorer(model, prompt)
    slots = random_slots(prompt, 8, 2, seed=1)
    for objective in OBJECTIVES:
        assert (
            session.score(slots, **objective)[0] - score(smollm2_module, prompt, slots, **objective)[0]
        ).abs().max() <= 1e-4
    assert_gradients_equal(session.token_gradient(slots[0]), token_gradient(smollm2_module, prompt, slots[0]))
