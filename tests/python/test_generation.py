"""Generated text is what transformers generates, whatever the batch; sampling follows the model's distribution."""

from __future__ import annotations

import inspect
import pickle
import re
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
from scripted_model import PROMPT, scripted_model
from test_scorer import open_prompt
from titer import _titer
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


def generate_ids(model: titer.Model, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    return [answer.ids for answer in titer.generate(model, prompts, **options)]


def transformers_greedy(
    module: PreTrainedModel, prompt: list[int], max_new_tokens: int, min_new_tokens: int = 0
) -> list[int]:
    forget_growth(module)
    ids = torch.tensor([prompt])
    with torch.no_grad():
        whole = module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            do_sample=False,
            pad_token_id=2,
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
        assert answer.ids == expected
        assert answer.text == peer.decode(expected, skip_special_tokens=True)
    for question, answer in list(zip(QUESTIONS, answers, strict=True))[::7]:
        assert titer.generate(model, question, max_new_tokens=8).text == answer.text


@cache
def in_float64(case: str) -> titer.Model:
    return titer.load_model(make_module(**CASES[case]).double(), tokenizer=tokenizer())


# Each changes what is drawn, or where an answer ends.
WAYS_OF_DECODING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 2.0},
    {"temperature": 2.0, "top_k": 12},
    {"temperature": 2.0, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "min_new_tokens": 3, "stop": ["a", " t", "e"]},
    {"min_new_tokens": 2, "stop": ["s", "o", "\n"]},
]


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(list(CASES)),
    st.integers(1, 7),
    st.integers(0, 1000),
    st.sampled_from(WAYS_OF_DECODING),
    st.integers(3, 20),
)
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(
    case: str, count: int, seed: int, decoding: dict[str, Any], max_new_tokens: int
) -> None:
    model = in_float64(case)  # a draw next to a border may not fall on its other side by the rounding of other shapes
    prompts = random_prompts(count, seed)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed, **decoding}
    answers = titer.generate(model, prompts, **options)
    assert_same(titer.generate(model, prompts[: count // 2 + 1], **options), answers[: count // 2 + 1])
    assert_same(titer.generate(model, prompts[:1] + random_prompts(3, seed + 1), **options)[:1], answers[:1])
    for i, prompt in enumerate(prompts):
        if prompt not in prompts[:i]:
            assert_same(titer.generate(model, [prompt], **options), [answers[i]])


def assert_same(found: list[titer.Generation], expected: list[titer.Generation]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.ids, one.text, one.finish_reason) == (other.ids, other.text, other.finish_reason)
        assert one.stop_string == other.stop_string
        assert one.log_probs == pytest.approx(
            other.log_probs, abs=1e-6
        )  # some norms are float32 in float64 models, too


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
    answers = titer.generate(model, prompts, max_new_tokens=20)
    assert [len(answer.ids) for answer in answers] == [min(20, 41 - length), 20]
    assert [answer.finish_reason for answer in answers] == ["context", "length"]
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
        text = peer.decode(answer, skip_special_tokens=True)
        assert titer.generate(model, message, max_new_tokens=8).text == text
        assert [answer.text for answer in titer.generate(model, [ids], max_new_tokens=8)] == [text]


def test_text_goes_in_plain_without_a_chat_template() -> None:
    model = pair("grouped heads, tied").model
    ids = model.tokenizer.encode("Hello")
    expected = model.tokenizer.decode(generate_ids(model, [ids], max_new_tokens=8)[0], skip_special_tokens=True)
    assert [answer.text for answer in titer.generate(model, ["Hello"], max_new_tokens=8)] == [expected]


def test_the_seed_decides_a_sampled_answer() -> None:
    model = pair("grouped heads, tied").model
    prompts = random_prompts(3, seed=3)

    def sampled(seed: int) -> list[list[int]]:
        return generate_ids(model, prompts, max_new_tokens=20, temperature=1.5, seed=seed)

    assert sampled(7) == sampled(7)
    assert sampled(7) != sampled(8)


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


def test_one_stop_string_and_none_need_no_list() -> None:
    model = pair("grouped heads, tied").model
    prompt = random_prompts(1, seed=4)
    options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 1.5, "seed": 4}
    assert titer.generate(model, prompt, stop=None, **options) == titer.generate(model, prompt, **options)
    stop = titer.generate(model, prompt, **options)[0].text[2]
    assert titer.generate(model, prompt, stop=stop, **options) == titer.generate(model, prompt, stop=[stop], **options)


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
        ([[3]], {"min_new_tokens": -1}, ValueError, r"\[generate\] min_new_tokens must be at least 0, got -1"),
        (
            [[3]],
            {"min_new_tokens": 9, "max_new_tokens": 8},
            ValueError,
            r"\[generate\] min_new_tokens must be at most 8, which is max_new_tokens, got 9",
        ),
        ([[3]], {"temperature": -1.0}, ValueError, "temperature must be at least 0"),
        ([[3]], {"temperature": float("nan")}, ValueError, "temperature"),
        ([[3]], {"top_k": -1}, ValueError, r"\[generate\] top_k must be at least 0, got -1"),
        ([[3]], {"top_k": 2.5}, ValueError, r"\[generate\] top_k must be an integer, got 2.5"),
        ([[3]], {"top_p": 0.0}, ValueError, r"\[generate\] top_p must be greater than 0 and at most 1, got 0"),
        ([[3]], {"top_p": 1.5}, ValueError, r"\[generate\] top_p must be greater than 0 and at most 1, got 1.5"),
        ([[3]], {"stop": ["end", 3]}, TypeError, r"\[generate\] stop must be a list of str, got \['end', 3\]"),
        ([[3]], {"stop": ["end", b"x"]}, TypeError, r"\[generate\] stop must be a list of str"),
        ([[3]], {"stop": ["end", ""]}, ValueError, r"\[generate\] stop must hold texts that are not empty"),
        (
            [[3]],
            {"stop": ["\ud800"]},
            ValueError,
            r"stop must be text that UTF-8 can write, got '\\ud800'",
        ),
        ([[3]], {"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_bad_requests_are_refused_by_name(
    prompts: list[list[int]], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        titer.generate(pair("grouped heads, tied").model, prompts, **options)


def test_unknown_options_are_refused() -> None:
    model: Any = pair("grouped heads, tied").model
    with pytest.raises(TypeError, match="max_tokens"):
        titer.generate(model, [[3]], max_tokens=3)
    with pytest.raises(ValueError, match=r"\[generate\] unknown option 'max_tokens'.*max_new_tokens"):
        titer.CandidateScorer(model, open_prompt("infix")).generate("x", max_tokens=3)


def test_options_are_those_of_the_compiled_core() -> None:
    """Names, order and defaults."""
    parameters = list(inspect.signature(titer.generate).parameters.values())[2:]
    signature = ", ".join(f"{p.name}: ... = {[] if p.default == () else p.default}" for p in parameters)
    for function in (_titer.generate, titer.Session.generate):
        assert function.__doc__ is not None
        options = function.__doc__.splitlines()[0].partition(", *, ")[2].rpartition(") -> ")[0]
        assert re.sub(r"(\w+): [^=]+ =", r"\1: ... =", options) == signature


@pytest.mark.parametrize(
    ("options", "reason", "count"),
    [
        ({}, "stop_token", 5),
        ({"max_new_tokens": 5}, "stop_token", 5),
        ({"max_new_tokens": 4}, "length", 4),
        ({"stop": ["x"]}, "stop_string", 2),
        ({"stop": ["x"], "max_new_tokens": 2}, "stop_string", 2),
        ({"stop": ["x"], "max_new_tokens": 1}, "length", 1),
        ({"min_new_tokens": 5, "max_new_tokens": 5}, "length", 5),
        ({"min_new_tokens": 3, "stop": ["x"]}, "stop_string", 4),
    ],
)
def test_an_answer_says_why_it_ends(options: dict[str, Any], reason: str, count: int) -> None:
    tokens = [tokenizer().token_to_id(spelled) for spelled in ("a", "x", "b", "x")]
    script = [*(token for token in tokens if token is not None), 2]
    (answer,) = titer.generate(scripted_model(script, tokenizer(), eos_token_id=2), [PROMPT], **options)
    assert (answer.finish_reason, len(answer.ids)) == (reason, count)
    assert answer.ids == script[:count] or options.get("min_new_tokens") == 5
    assert len(answer.log_probs) == count and max(answer.log_probs) < 0


def test_an_answer_is_a_value() -> None:
    model = pair("biases").model
    answer = titer.generate(model, "Hello", max_new_tokens=3, temperature=1.0)
    assert str(answer) == answer.text
    assert repr(answer) == f"Generation(text={answer.text!r}, finish_reason='length', 3 tokens)"
    assert answer == titer.generate(model, "Hello", max_new_tokens=3, temperature=1.0)
    assert answer != titer.generate(model, "Hello", max_new_tokens=2, temperature=1.0)
    assert pickle.loads(pickle.dumps(answer)) == answer
    with pytest.raises(AttributeError):
        answer.text = "something else"  # type: ignore[misc]


@pytest.mark.parametrize("kind", [titer.CandidateScorer, titer.ReferenceScorer])
def test_a_session_answers_as_the_model_does(kind: type[titer.CandidateScorer]) -> None:
    model = pair("biases").model
    session = kind(model, open_prompt("infix"))
    options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 1.5, "top_k": 30, "seed": 4, "stop": ["e"]}
    ids = session.prompt.encode(" the town")
    assert session.generate(" the town", **options) == titer.generate(model, [ids], **options)[0]


def test_an_answer_may_fill_the_context_exactly() -> None:
    model = titer.load_model(make_module(eos_token_id=None), tokenizer=tokenizer())
    assert len(generate_ids(model, [[3] * 500], max_new_tokens=12)[0]) == 12
