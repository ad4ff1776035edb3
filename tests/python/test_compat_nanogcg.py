"""titer.compat.nanogcg has nanoGCG's interface, and its losses are those of the prompt that the model reads."""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny_models import write_tiny_llama
from titer.compat import nanogcg

DEFAULTS = {
    "num_steps": 250,
    "optim_str_init": "x x x x x x x x x x x x x x x x x x x x",
    "search_width": 512,
    "batch_size": None,
    "topk": 256,
    "n_replace": 1,
    "buffer_size": 0,
    "use_mellowmax": False,
    "mellowmax_alpha": 1.0,
    "early_stop": False,
    "use_prefix_cache": True,
    "allow_non_ascii": False,
    "filter_ids": True,
    "add_space_before_target": False,
    "seed": None,
    "verbosity": "INFO",
    "probe_sampling_config": None,
}
MESSAGE = "What is the capital? {optim_str} Answer!"


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_folder).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


def config(**changes: Any) -> nanogcg.GCGConfig:
    small = {"num_steps": 3, "search_width": 12, "topk": 32, "seed": 0, "verbosity": "WARNING"}
    return nanogcg.GCGConfig(**(small | changes))


def loss_of(text: str, target: str, model: Any, tokenizer: Any) -> float:
    """Mean negative log-likelihood of the target after a text, tokenised as one, for targets of whole tokens."""
    prompt_length = len(tokenizer(text).input_ids)
    ids = tokenizer(text + target, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(ids).logits[0, prompt_length - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, prompt_length:]))


def rendered(content: str, tokenizer: Any) -> str:
    chat = [{"role": "user", "content": content}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def test_settings_have_nanogcgs_names_and_defaults() -> None:
    assert dataclasses.asdict(nanogcg.GCGConfig()) == DEFAULTS
    fields = {field.name: field.default for field in dataclasses.fields(nanogcg.ProbeSamplingConfig)}
    assert {name: fields[name] for name in ("r", "sampling_factor")} == {"r": 8, "sampling_factor": 16}


def test_names_and_defaults_are_those_in_nanogcgs_source(nanogcg_folder: Path) -> None:
    tree = ast.parse((nanogcg_folder / "nanogcg" / "gcg.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for ours in (nanogcg.GCGConfig, nanogcg.GCGResult, nanogcg.ProbeSamplingConfig):
        theirs = [node for node in classes[ours.__name__].body if isinstance(node, ast.AnnAssign)]
        names = [field.name for field in dataclasses.fields(ours)]
        assert names[: len(theirs)] == [ast.unparse(node.target) for node in theirs]
        for field, node in zip(dataclasses.fields(ours), theirs, strict=False):
            if node.value is not None:
                assert field.default == ast.literal_eval(node.value)
    (run,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run"]
    assert [argument.arg for argument in run.args.args] == ["model", "tokenizer", "messages", "target", "config"]


@pytest.mark.parametrize("buffer_size", [0, 4])
def test_losses_are_those_of_the_strings_in_place(buffer_size: int, model: Any, tokenizer: Any) -> None:
    result = nanogcg.run(model, tokenizer, MESSAGE, "NO", config(buffer_size=buffer_size))
    assert len(result.losses) == len(result.strings) == 3
    for text, loss in [*zip(result.strings, result.losses, strict=True), (result.best_string, result.best_loss)]:
        whole = rendered(MESSAGE.replace("{optim_str}", text), tokenizer)
        assert loss == pytest.approx(loss_of(whole, "NO", model, tokenizer), abs=1e-4)


def test_best_is_the_step_of_lowest_loss(model: Any, tokenizer: Any) -> None:
    result = nanogcg.run(model, tokenizer, MESSAGE, "NO", config(num_steps=6))
    assert result.best_loss == pytest.approx(min(result.losses), abs=1e-5)
    assert result.best_string == result.strings[result.losses.index(min(result.losses))]


def test_slot_is_appended_to_the_last_message_where_it_is_absent(model: Any, tokenizer: Any) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it? "}]
    marked = [turns[0], {"role": "user", "content": "What is it? {optim_str}"}]
    assert nanogcg.run(model, tokenizer, turns, "NO", config()).strings == (
        nanogcg.run(model, tokenizer, marked, "NO", config()).strings
    )
    assert turns[1]["content"] == "What is it? "


@pytest.mark.parametrize(
    ("message", "initial", "starts_with_space"),
    [
        ("prompt{optim_str}", DEFAULTS["optim_str_init"], False),
        ("prompt", DEFAULTS["optim_str_init"], False),
        ("a da{optim_str}", "n x x x", True),  # "dan" is one token
    ],
)
def test_slot_beside_a_word_works(
    message: str, initial: str, starts_with_space: bool, model: Any, tokenizer: Any
) -> None:
    result = nanogcg.run(model, tokenizer, message, "NO", config(optim_str_init=initial, num_steps=0))
    assert result.best_string == " " * starts_with_space + initial
    result = nanogcg.run(model, tokenizer, message, "NO", config(optim_str_init=initial))
    content = message.replace("{optim_str}", "") + result.best_string
    expected = loss_of(rendered(content, tokenizer), "NO", model, tokenizer)
    assert result.best_loss == pytest.approx(expected, abs=1e-4)


def test_slot_that_cannot_be_told_from_its_neighbours_is_an_error(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"the text after the slot merges"):
        nanogcg.run(model, tokenizer, "a {optim_str}n b", "NO", config(optim_str_init="x x da"))


def test_tokenizer_without_a_template_joins_the_messages(tmp_path: Path, model: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_tiny_llama(tmp_path, chat_template=None))
    turns = [{"role": "user", "content": "What is it? "}, {"role": "user", "content": "{optim_str} Answer: "}]
    result = nanogcg.run(model, tokenizer, turns, "NO", config())
    expected = loss_of(f"What is it? {result.best_string} Answer: ", "NO", model, tokenizer)
    assert result.best_loss == pytest.approx(expected, abs=1e-4)
    assert tokenizer.chat_template is None


def test_space_before_the_target(model: Any, tokenizer: Any) -> None:
    result = nanogcg.run(model, tokenizer, MESSAGE, "NO", config(add_space_before_target=True))
    assert result.details.target == " NO"


def test_options_arrive_at_the_attack(model: Any, tokenizer: Any) -> None:
    wanted = config(
        num_steps=1, search_width=5, batch_size=2, topk=7, n_replace=2, buffer_size=2, use_mellowmax=True,
        mellowmax_alpha=2.0, early_stop=True, allow_non_ascii=True, filter_ids=False, seed=9,
        optim_str_init=["x x x x", "x x x."],
    )  # fmt: skip
    options = json.loads(nanogcg.run(model, tokenizer, MESSAGE, "NO", wanted).details.options_json)
    same = ("num_steps", "search_width", "batch_size", "topk", "n_replace", "buffer_size", "mellowmax_alpha",
            "early_stop", "allow_non_ascii", "filter_ids", "seed", "optim_str_init")  # fmt: skip
    assert {name: options[name] for name in same} == {name: getattr(wanted, name) for name in same}
    assert options["loss"] == "mellowmax"


def test_drawn_seed_is_recorded_and_repeats_the_run(model: Any, tokenizer: Any) -> None:
    first = nanogcg.run(model, tokenizer, MESSAGE, "NO", config(seed=None))
    again = nanogcg.run(model, tokenizer, MESSAGE, "NO", config(seed=first.seed))
    assert again.strings == first.strings
    assert again.losses == first.losses
    assert nanogcg.run(model, tokenizer, MESSAGE, "NO", config(seed=None)).seed != first.seed


def test_probe_sampling_is_refused_by_name(model: Any, tokenizer: Any) -> None:
    probe = nanogcg.ProbeSamplingConfig(model, tokenizer)
    with pytest.raises(NotImplementedError, match="probe_sampling_config"):
        nanogcg.run(model, tokenizer, MESSAGE, "NO", config(probe_sampling_config=probe))


def test_every_step_is_logged(model: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    result = nanogcg.run(model, tokenizer, MESSAGE, "NO", config(verbosity="INFO"))
    steps = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO][1:]
    assert len(steps) == 3
    assert repr(result.strings[-1]) in steps[-1]
