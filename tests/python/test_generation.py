"""Generated text is what transformers generates, whatever the batch; sampling follows the model's distribution."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import AutoTokenizer, PreTrainedModel

import titer
from model_cases import CASES, VOCABULARY, make_module, pair, tokenizer
from titer._titer import generate_ids
from transformers_oracle import forget_growth

QUESTIONS = [
    "What is the capital of France?",
    "Name three primary colours.",
    "Write a haiku about autumn.",
    "How many legs does a spider have?",
    "Explain gravity to a child.",
    "What is 17 + 25?",
    "Translate 'good morning' into Spanish.",
    "Who wrote Romeo and Juliet?",
    "List two uses of baking soda.",
    "Is the sun a star?",
    "Tell me a joke about cats.",
    "def square(x):",
    "Give me a synonym for 'happy'.",
    "What do bees make?",
    "Why is the sky blue?",
    "Which planet is the largest?",
    "Finish the sentence: Once upon a time",
    "What is the opposite of hot?",
    "Hi",
    "How do I boil an egg? Please answer in one short sentence, and mention how many minutes it takes.",
]


def random_prompts(count: int, seed: int, longest: int = 40) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def transformers_greedy(module: PreTrainedModel, prompt: list[int], max_new_tokens: int) -> list[int]:
    forget_growth(module)
    ids = torch.tensor([prompt])
    with torch.no_grad():
        whole = module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=2
        )
    answer: list[int] = whole[0, len(prompt) :].tolist()
    return answer


@pytest.mark.parametrize("case", [case for case in CASES if case != "mistral, window of 1"])
def test_greedy_equals_transformers_token_for_token(case: str) -> None:
    module, model = pair(case)
    prompts = random_prompts(6, seed=1)
    expected = [transformers_greedy(module, prompt, 12) for prompt in prompts]
    assert generate_ids(model, prompts, max_new_tokens=12) == expected


@pytest.mark.parametrize("case", [case for case in CASES if "rope beyond" not in case])
def test_greedy_takes_the_best_token_of_whole_passes(case: str) -> None:
    """Without a cache on the other side: that of transformers forgets to forget with a window of one."""
    model = pair(case).model
    for prompt in random_prompts(3, seed=2):
        whole = prompt + generate_ids(model, [prompt], max_new_tokens=10)[0]
        assert model(torch.tensor([whole]))[0, len(prompt) - 1 : -1].argmax(-1).tolist() == whole[len(prompt) :]


def test_smollm2_greedy_equals_transformers_on_20_prompts(
    smollm2_folder: Path, smollm2_module: PreTrainedModel
) -> None:
    peer = AutoTokenizer.from_pretrained(smollm2_folder)
    model = titer.load_model(smollm2_module, tokenizer=peer)
    answers = titer.generate(model, QUESTIONS, max_new_tokens=8)
    assert len(QUESTIONS) == 20
    for question, answer in zip(QUESTIONS, answers, strict=True):
        chat = [{"role": "user", "content": question}]
        prompt = peer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        expected = transformers_greedy(smollm2_module, prompt, 8)
        assert answer == peer.decode(expected, skip_special_tokens=True)
    for question, answer in list(zip(QUESTIONS, answers, strict=True))[::7]:
        assert titer.generate(model, question, max_new_tokens=8) == answer


@cache
def in_float64(case: str) -> titer.Model:
    return titer.load_model(make_module(**CASES[case]).double(), tokenizer=tokenizer())


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(list(CASES)),
    st.integers(1, 7),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.7, 2.0]),
    st.integers(1, 20),
)
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(
    case: str, count: int, seed: int, temperature: float, max_new_tokens: int
) -> None:
    model = in_float64(case)  # a draw next to a border may not fall on its other side by the rounding of other shapes
    prompts = random_prompts(count, seed)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    answers = generate_ids(model, prompts, **options)
    assert generate_ids(model, prompts[: count // 2 + 1], **options) == answers[: count // 2 + 1]
    assert generate_ids(model, prompts[:1] + random_prompts(3, seed + 1), **options)[0] == answers[0]
    for i, prompt in enumerate(prompts):
        if prompt not in prompts[:i]:
            assert generate_ids(model, [prompt], **options) == [answers[i]]


def test_one_prompt_several_times_is_several_draws() -> None:
    options = {"max_new_tokens": 8, "temperature": 1.5, "seed": 3}
    answers = generate_ids(pair("biases").model, [[5, 6, 7]] * 20, **options)
    assert len({tuple(answer) for answer in answers}) > 10


def test_a_temperature_near_zero_is_greedy() -> None:
    model = pair("biases").model
    prompts = random_prompts(5, seed=4)
    greedy = generate_ids(model, prompts, max_new_tokens=6)
    assert generate_ids(model, prompts, max_new_tokens=6, temperature=1e-310) == greedy


@pytest.mark.parametrize("length", [30, 39, 40])
def test_an_answer_ends_where_the_context_does(length: int) -> None:
    """The last token needs no position of its own."""
    model = titer.load_model(make_module(max_position_embeddings=40, eos_token_id=None), tokenizer=tokenizer())
    prompts = [[3] * length, [4] * 5]
    answers = generate_ids(model, prompts, max_new_tokens=20)
    assert [len(answer) for answer in answers] == [min(20, 41 - length), 20]
    with pytest.raises(ValueError, match="41 tokens, the model takes at most 40"):
        generate_ids(model, [[3] * 41])
    assert len(generate_ids(model, [[3]], max_new_tokens=2**63 - 1)[0]) == 40


def test_an_end_of_sequence_token_ends_its_own_answer_only() -> None:
    module = make_module(seed=5)
    prompts = random_prompts(4, seed=2)
    model = titer.load_model(module, tokenizer=tokenizer())
    free = generate_ids(model, prompts, max_new_tokens=16)
    stop = free[1][4]
    module.generation_config.eos_token_id = stop
    model = titer.load_model(module, tokenizer=tokenizer())
    expected = [answer[: answer.index(stop) + 1] if stop in answer else answer for answer in free]
    assert len(expected[1]) <= 5
    assert generate_ids(model, prompts, max_new_tokens=16) == expected
    assert len({len(answer) for answer in expected}) > 1


def test_eos_of_the_files_generation_config_counts(tiny_folder: Path, tmp_path: Path) -> None:
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
    assert titer.load_model(tmp_path).eos_token_ids == [5, 7]
    (tmp_path / "generation_config.json").unlink()
    assert titer.load_model(tmp_path).eos_token_ids == [2]


def test_text_is_rendered_with_the_chat_template(tiny_folder: Path) -> None:
    model = titer.load_model(tiny_folder)
    peer = AutoTokenizer.from_pretrained(tiny_folder)
    for message in ("Hello", " What is 2024?\n"):
        chat = [{"role": "user", "content": message}]
        ids = peer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        answer = generate_ids(model, [ids], max_new_tokens=8)[0]
        assert titer.generate(model, message, max_new_tokens=8) == peer.decode(answer, skip_special_tokens=True)
        assert titer.generate(model, [ids], max_new_tokens=8) == [peer.decode(answer, skip_special_tokens=True)]


def test_text_goes_in_plain_without_a_chat_template() -> None:
    model = pair("grouped heads, tied").model
    ids = model.tokenizer.encode("Hello")
    expected = model.tokenizer.decode(generate_ids(model, [ids], max_new_tokens=8)[0], skip_special_tokens=True)
    assert titer.generate(model, ["Hello"], max_new_tokens=8) == [expected]


def test_the_seed_decides_a_sampled_answer() -> None:
    model = pair("grouped heads, tied").model
    prompts = random_prompts(3, seed=3)

    def sampled(seed: int) -> list[list[int]]:
        return generate_ids(model, prompts, max_new_tokens=20, temperature=1.5, seed=seed)

    assert sampled(7) == sampled(7)
    assert sampled(7) != sampled(8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_sampled_tokens_follow_the_softmax(temperature: float) -> None:
    module = make_module(seed=6, vocab_size=11)
    with torch.no_grad():
        module.get_input_embeddings().weight.mul_(0.7)  # no token so rare that chi-square would not hold
    model = titer.load_model(module, tokenizer=tokenizer())
    prompt, draws = [4, 7, 1, 9], 2000
    answers = generate_ids(model, [prompt] * draws, max_new_tokens=1, temperature=temperature, seed=11)
    probabilities = torch.softmax(model(torch.tensor([prompt]))[0, -1].double() / temperature, -1)
    counts = torch.bincount(torch.tensor(answers).flatten(), minlength=11)
    likely = probabilities * draws >= 5
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]]).double()
    expected = torch.cat([probabilities[likely], probabilities[~likely].sum()[None]]) * draws
    kept = expected > 0
    assert likely.sum() >= 3
    assert chisquare(observed[kept].numpy(), expected[kept].numpy()).pvalue > 1e-3


def test_second_tokens_follow_the_softmax_given_the_first() -> None:
    """Draws of successive positions must be independent of each other."""
    module = make_module(seed=8, vocab_size=5, eos_token_id=None)
    model = titer.load_model(module, tokenizer=tokenizer())
    draws = 1500
    answers = generate_ids(model, [[1, 2, 3]] * draws, max_new_tokens=2, temperature=4.0, seed=4)
    first = torch.softmax(model(torch.tensor([[1, 2, 3]]))[0, -1].double() / 4, -1)
    second = torch.softmax(model(torch.tensor([[1, 2, 3, t] for t in range(5)]))[:, -1].double() / 4, -1)
    expected = (first[:, None] * second).flatten() * draws
    pairs = torch.tensor(answers) @ torch.tensor([5, 1])
    observed = torch.bincount(pairs, minlength=25).double()
    assert expected.min() > 3
    assert chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-3


def test_a_low_temperature_is_greedy() -> None:
    model = pair("llama3 rope").model
    prompts = random_prompts(3, seed=4)
    assert generate_ids(model, prompts, temperature=1e-6) == generate_ids(model, prompts)


def test_no_prompts_give_no_answers() -> None:
    assert titer.generate(pair("grouped heads, tied").model, []) == []


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([[3], []], {}, ValueError, r"\[generate\] prompt 1 is empty"),
        ([[3] * 513], {}, ValueError, "513 tokens, the model takes at most 512"),
        ([[3, VOCABULARY]], {}, IndexError, "token id 320 is outside the vocabulary of 320"),
        ([[3, -1]], {}, IndexError, "token id -1"),
        ([[3]], {"max_new_tokens": 0}, ValueError, r"\[generate\] max_new_tokens must be at least 1, got 0"),
        ([[3]], {"temperature": -1.0}, ValueError, "temperature must be at least 0"),
        ([[3]], {"temperature": float("nan")}, ValueError, "temperature"),
        ([[3]], {"seed": -1}, ValueError, "seed must be at least 0"),
        ([[3]], {"max_tokens": 3}, (TypeError, ValueError), "max_tokens.*max_new_tokens"),
    ],
)
def test_bad_requests_are_refused_by_name(
    prompts: list[list[int]], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        generate_ids(pair("grouped heads, tied").model, prompts, **options)


def test_an_answer_may_fill_the_context_exactly() -> None:
    model = titer.load_model(make_module(eos_token_id=None), tokenizer=tokenizer())
    assert len(generate_ids(model, [[3] * 500], max_new_tokens=12)[0]) == 12
