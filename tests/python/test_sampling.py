"""Sampled tokens follow the distribution that transformers' warpers leave; log-probabilities are the model's own."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import titer
from model_cases import CASES, make_module, pair, tokenizer
from scripted_model import PROMPT
from test_generation import random_prompts, transformers_greedy

VOCABULARY = 11
SETTINGS = [
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 2.0, "top_k": 4},
    {"temperature": 2.0, "top_k": 100},
    {"temperature": 1.5, "top_p": 0.05},
    {"temperature": 1.5, "top_p": 0.37},
    {"temperature": 2.0, "top_p": 0.999},
    {"temperature": 0.7, "top_k": 6, "top_p": 0.83},
    {"temperature": 4.0, "top_k": 5, "top_p": 0.61},
]


@cache
def model_of(logits: tuple[float, ...]) -> titer.Model:
    """A model whose next token after `PROMPT` has these logits, equal ones to the last bit."""
    module = make_module(vocab_size=len(logits), hidden_size=16, tie_word_embeddings=False).double()
    hidden = module.model(torch.tensor([PROMPT])).last_hidden_state[0, -1].detach()
    with torch.no_grad():
        module.lm_head.weight.copy_(torch.tensor(logits, dtype=torch.float64)[:, None] * hidden / hidden.dot(hidden))
    return titer.load_model(module, tokenizer=tokenizer())


def warped(logits: tuple[float, ...], temperature: float, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor:
    """Probabilities as transformers' generate makes them, in float64."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k > 0:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    scores = warpers(torch.tensor([PROMPT]), torch.tensor([logits], dtype=torch.float64))
    return torch.softmax(scores[0], -1)


def draw(logits: tuple[float, ...], draws: int, **options: Any) -> torch.Tensor:
    """How often each token comes."""
    answers = titer.generate(model_of(logits), [PROMPT] * draws, max_new_tokens=1, **options)
    return torch.bincount(torch.tensor([answer.ids[0] for answer in answers]), minlength=len(logits))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_sampled_tokens_follow_the_warped_distribution(settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(6)
    logits = tuple((1.5 * torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)).tolist())
    draws = 1000
    expected = warped(logits, **settings) * draws
    counts = draw(logits, draws, seed=11, **settings).double()
    assert counts[expected == 0].sum() == 0
    likely = expected >= 5
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    wanted = torch.cat([expected[likely], expected[~likely].sum()[None]])
    kept = wanted > 0
    if kept.sum() > 1:
        assert chisquare(observed[kept].numpy(), wanted[kept].numpy()).pvalue > 1e-3
    else:
        assert observed[kept].item() == draws


@pytest.mark.parametrize("seed", range(8))
def test_the_tokens_that_may_come_are_those_that_the_warpers_keep(seed: int) -> None:
    """With ties, of which top-k keeps all and top-p at its border the lowest ids, where transformers keeps any."""
    generator = torch.Generator().manual_seed(seed)
    logits = tuple(torch.randint(4, (VOCABULARY,), generator=generator).double().mul(0.5).tolist())
    top_k = int(torch.randint(1, VOCABULARY, (), generator=generator))
    top_p = float(0.1 + 0.85 * torch.rand((), generator=generator))
    for options in ({"top_k": top_k}, {"top_p": top_p}, {"top_k": top_k, "top_p": top_p}):
        kept = warped(logits, 4.0, **options) > 0  # flat enough for all of them to come
        found = draw(logits, 400, seed=seed, temperature=4.0, **options) > 0
        if options == {"top_k": top_k}:
            assert found.tolist() == kept.tolist()
            continue
        values = torch.tensor(logits)
        assert values[found].sort().values.tolist() == values[kept].sort().values.tolist()
        border = values[kept].min()
        assert found[values > border].all()
        at_border = found[values == border].tolist()
        assert at_border == sorted(at_border, reverse=True)


def test_of_equally_likely_tokens_at_the_border_of_top_p_the_first_may_come() -> None:
    logits = (0.0, 1.0, 0.0, 1.0, 1.0, 0.0)
    weights = torch.tensor(logits).exp()
    top_p = float(2.5 * weights[1] / weights.sum())
    assert (draw(logits, 200, temperature=1.0, top_p=top_p) > 0).tolist() == [False, True, False, True, True, False]
    assert (draw(logits, 200, temperature=1.0, top_p=0.6 * top_p) > 0).tolist() == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]
    assert (draw(logits, 200, temperature=1.0, top_k=2) > 0).tolist() == [False, True, False, True, True, False]


def test_top_k_of_1_is_greedy_and_greedy_ignores_both() -> None:
    model = pair("biases").model
    prompts = random_prompts(6, seed=2)
    greedy = titer.generate(model, prompts, max_new_tokens=8)
    assert titer.generate(model, prompts, max_new_tokens=8, top_k=5, top_p=0.3) == greedy
    for drawn in ({"temperature": 1.3, "top_k": 1}, {"temperature": 1.3, "top_p": 1e-9}):
        for answer, likeliest in zip(titer.generate(model, prompts, max_new_tokens=8, **drawn), greedy, strict=True):
            assert (answer.ids, answer.finish_reason) == (likeliest.ids, likeliest.finish_reason)
            assert answer.log_probs == pytest.approx(likeliest.log_probs, abs=1e-5)  # greedy ones come without logits


def test_a_minimum_length_changes_no_greedy_answer_that_is_longer() -> None:
    """In bfloat16, where the order of rounded logits is another one now and then."""
    model = titer.load_model(make_module(seed=4).to(torch.bfloat16), tokenizer=tokenizer())
    prompts = random_prompts(40, seed=7)
    longer = [answer for answer in titer.generate(model, prompts, max_new_tokens=8) if len(answer.ids) == 8]
    assert len(longer) > 20
    with_minimum = titer.generate(model, prompts, max_new_tokens=8, min_new_tokens=8)
    assert [answer for answer in with_minimum if answer in longer] == longer


def test_cuts_that_keep_everything_change_no_draw() -> None:
    model = pair("biases").model
    prompts = random_prompts(6, seed=2)
    free = titer.generate(model, prompts, max_new_tokens=8, temperature=1.3, seed=2)
    for options in ({"top_k": 0}, {"top_k": 320}, {"top_k": 2**62}, {"top_p": 1.0}, {"top_p": 1}):
        assert titer.generate(model, prompts, max_new_tokens=8, temperature=1.3, seed=2, **options) == free


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_greedy_ties_take_the_lowest_id(dtype: torch.dtype) -> None:
    module = make_module(tie_word_embeddings=False, eos_token_id=None)
    with torch.no_grad():
        module.lm_head.weight.copy_(module.lm_head.weight[::5].repeat_interleave(5, 0))
    model = titer.load_model(module.to(dtype), tokenizer=tokenizer())
    answers = titer.generate(model, random_prompts(20, seed=1), max_new_tokens=12)
    assert all(token % 5 == 0 for answer in answers for token in answer.ids)
    assert len({token for answer in answers for token in answer.ids}) > 10


@pytest.mark.parametrize("case", [case for case in CASES if "rope beyond" not in case])
def test_log_probs_are_those_of_whole_passes(case: str) -> None:
    """Whatever changes the distribution that is sampled from."""
    module, model = pair(case)
    prompts = random_prompts(3, seed=8)
    options: dict[str, Any] = {"temperature": 2.5, "top_k": 40, "top_p": 0.9, "min_new_tokens": 6, "seed": 1}
    for settings in ({}, options):
        for prompt, answer in zip(prompts, titer.generate(model, prompts, max_new_tokens=10, **settings), strict=True):
            with torch.no_grad():
                logits = module(torch.tensor([prompt + answer.ids])).logits[0, len(prompt) - 1 : -1]
            log_probs = torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
            assert answer.log_probs == pytest.approx(log_probs.tolist(), abs=1e-4)


@pytest.mark.parametrize("minimum", [1, 5, 16])
def test_no_end_comes_before_the_minimum_as_in_transformers(minimum: int) -> None:
    module = make_module(seed=5)
    module.generation_config.eos_token_id = list(range(0, 320, 3))  # one is always near
    model = titer.load_model(module, tokenizer=tokenizer())
    prompts = random_prompts(8, seed=2)
    assert min(len(answer.ids) for answer in titer.generate(model, prompts, max_new_tokens=16)) == 1
    answers = titer.generate(model, prompts, max_new_tokens=16, min_new_tokens=minimum)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.ids == transformers_greedy(module, prompt, 16, min_new_tokens=minimum)
        assert (answer.finish_reason == "stop_token") == (len(answer.ids) > minimum and answer.ids[-1] % 3 == 0)
    sampled = titer.generate(model, prompts, max_new_tokens=16, min_new_tokens=minimum, temperature=2.0)
    for answer in sampled:
        assert len(answer.ids) >= min(minimum + 1, 16) and not any(token % 3 == 0 for token in answer.ids[:minimum])


def test_smollm2_says_more_where_it_must(smollm2_folder: Any, smollm2_module: PreTrainedModel) -> None:
    model = titer.load_model(smollm2_folder, dtype="float32")
    assert model.chat_template is not None
    text = model.chat_template.render([{"role": "user", "content": "Say only the word: yes"}])
    prompt = model.tokenizer.encode(text, add_special_tokens=False)
    (free,) = titer.generate(model, [prompt], max_new_tokens=24)
    minimum = len(free.ids) + 3
    assert free.finish_reason == "stop_token"
    (answer,) = titer.generate(model, [prompt], max_new_tokens=minimum + 8, min_new_tokens=minimum)
    assert answer.ids[: len(free.ids) - 1] == free.ids[:-1]
    assert answer.ids == transformers_greedy(smollm2_module, prompt, minimum + 8, min_new_tokens=minimum)


def test_a_vocabulary_of_ends_has_no_minimum() -> None:
    module = make_module(vocab_size=11)
    module.generation_config.eos_token_id = list(range(11))
    model = titer.load_model(module, tokenizer=tokenizer())
    assert len(titer.generate(model, [PROMPT])[0].ids) == 1
    with pytest.raises(ValueError, match="every token of this model ends an answer"):
        titer.generate(model, [PROMPT], min_new_tokens=1)


def test_end_tokens_outside_the_vocabulary_never_come() -> None:
    module = make_module()
    module.generation_config.eos_token_id = [2, 320, 100000]
    model = titer.load_model(module, tokenizer=tokenizer())
    assert len(titer.generate(model, [PROMPT], min_new_tokens=4, max_new_tokens=4)[0].ids) == 4


def test_logits_that_are_not_finite_are_refused() -> None:
    module = make_module(tie_word_embeddings=False)
    with torch.no_grad():
        module.lm_head.weight.mul_(1e38)
    model = titer.load_model(module, tokenizer=tokenizer())
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"\[generate\] logits are not finite"):
            titer.generate(model, [PROMPT], temperature=temperature)
