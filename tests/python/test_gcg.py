"""GCG: what it reports is true of the model, what it writes is text that an attacker can write, every option works."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

import titer
from tiny_models import write_tiny_llama
from transformers_oracle import all_logits

MESSAGE = "Tell me about the town. {slot}"
TARGET = "Sure, here is"
MESSAGES = {"suffix": MESSAGE, "prefix": "{slot} is the capital?", "infix": "What is {slot} in the town?"}
# What a run computes: everything of a trace but time and memory.
COMPUTED = ["step", "loss", "best_loss", "width", "draws", "queries", "tokens"]

GCG = partial(titer.attacks.GCG, num_steps=4, search_width=24, topk=32, seed=0)


class Victim:
    """A chat model with rows of the embedding that belong to no token, in titer and in transformers."""

    def __init__(self, folder: Path) -> None:
        self.folder = write_tiny_llama(folder, vocab_size=350, unused_rows=30, seed=1)
        self.model = titer.load_model(folder)
        self.system = titer.System(self.model)
        self.module: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)

    def prompt(self, place: str = "suffix", target: str = TARGET, initial: str = "x x x x x x") -> titer.Prompt:
        return titer.Prompt.from_chat(self.model, MESSAGES[place], target=target, initial=initial)

    def read(self, text: str, place: str = "suffix") -> list[int]:
        """Render and tokenise the final prompt as its victim would."""
        chat = [{"role": "user", "content": MESSAGES[place].replace("{slot}", text)}]
        ids: list[int] = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return ids

    def loss(self, text: str, place: str = "suffix", target: str = TARGET) -> float:
        """Mean negative log-likelihood of the target after that text."""
        ids = self.read(text, place)
        answer = self.tokenizer.encode(target, add_special_tokens=False)
        with torch.no_grad():
            logits = all_logits(self.module, torch.tensor([ids + answer]))[0, len(ids) - 1 : -1]
        return torch.nn.functional.cross_entropy(logits.double(), torch.tensor(answer)).item()

    def answer(self, text: str, tokens: int = 48) -> str:
        ids = torch.tensor([self.read(text)])
        whole = self.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
        decoded: str = self.tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
        return decoded


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return Victim(tmp_path_factory.mktemp("victim"))


def assert_writable(victim: Victim, prompt: titer.Prompt, result: titer.attacks.AttackResult, place: str) -> None:
    """The ids are those of ordinary tokens, and what the victim reads is what was scored."""
    assert len(result.ids) == len(prompt.slot_ids)
    assert not {*victim.tokenizer.all_special_ids, *victim.tokenizer.added_tokens_decoder} & {*result.ids}
    assert max(result.ids) < len(victim.tokenizer)
    assert victim.read(result.text, place) == prompt.before_ids + result.ids + prompt.after_ids


@pytest.mark.parametrize("place", MESSAGES)
def test_the_reported_loss_is_that_of_the_final_prompt(victim: Victim, place: str) -> None:
    prompt = victim.prompt(place)
    result = GCG(num_steps=8).run(victim.system, prompt)
    assert_writable(victim, prompt, result, place)
    assert result.loss == pytest.approx(victim.loss(result.text, place), abs=1e-4)
    assert result.initial_loss == pytest.approx(victim.loss("x x x x x x", place), abs=1e-4)
    assert result.loss == pytest.approx(result.trace["best_loss"].iloc[-1], abs=1e-5)
    assert result.loss < result.initial_loss - 0.3
    assert result.target == TARGET and result.attack == "gcg" and result.stop_reason == "num_steps"
    assert result.template_hash == prompt.template_hash


def test_without_the_filter_the_reported_loss_is_still_that_of_the_text(victim: Victim) -> None:
    prompt = victim.prompt()
    for seed in range(4):
        result = GCG(num_steps=5, topk=300, filter_ids=False, seed=seed).run(victim.system, prompt)
        assert result.loss == pytest.approx(victim.loss(result.text), abs=1e-4)
        assert victim.read(result.text) == prompt.before_ids + result.ids + prompt.after_ids


def test_the_reported_completions_are_those_of_the_model(victim: Victim) -> None:
    result = GCG().run(victim.system, victim.prompt())
    assert result.initial_completion == victim.answer("x x x x x x")
    assert result.completion == victim.answer(result.text)
    assert result.success == result.completion.startswith(TARGET)


OPTIONS: dict[str, dict[str, Any]] = {
    "buffer": {"buffer_size": 4},
    "two replaced": {"n_replace": 2},
    "all replaced": {"n_replace": 6},
    "mellowmax": {"loss": "mellowmax", "mellowmax_alpha": 0.5},
    "carlini_wagner": {"loss": "carlini_wagner", "cw_margin": 0.1},
    "momentum": {"momentum": 0.6},
    "stratified positions": {"stratified_positions": True},
    "non-ascii": {"allow_non_ascii": True},
    "unfiltered": {"filter_ids": False},
    "unfiltered non-ascii": {"filter_ids": False, "allow_non_ascii": True},
    "several starts": {"optim_str_init": ["x x x x x x", "k b x t f n"]},
    "several starts with a buffer": {"optim_str_init": ["x x x x x x", "k b x t f n"], "buffer_size": 5},
    "small batches": {"batch_size": 5},
    "early stop that never comes": {"early_stop": True},
    "one replacement per position": {"topk": 1, "n_replace": 3},
    "more replacements than tokens": {"topk": 10_000},
    "everything": {
        "buffer_size": 3, "n_replace": 2, "loss": "mellowmax", "momentum": 0.3, "stratified_positions": True,
        "allow_non_ascii": True, "early_stop": True, "batch_size": 7,
    },
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_searches(victim: Victim, options: str) -> None:
    prompt = victim.prompt()
    attack = GCG(**OPTIONS[options])
    result = attack.run(victim.system, prompt)
    trace = result.trace
    assert trace["step"].tolist() == [1, 2, 3, 4]
    assert (trace["best_loss"].diff().dropna() <= 0).all()
    assert (trace["best_loss"] <= trace["loss"]).all()
    assert (trace["width"] <= 24).all() and (trace["draws"] <= 20 * 24).all()
    if options != "one replacement per position":
        assert (trace["width"] == 24).all()
    # These move too little, or too far, or to ids that their text does not keep.
    if options not in ("one replacement per position", "all replaced") and "unfiltered" not in options:
        assert result.loss < result.initial_loss
    if "unfiltered" not in options:
        assert_writable(victim, prompt, result, "suffix")
        if "loss" not in OPTIONS[options]:
            assert result.loss == pytest.approx(victim.loss(result.text), abs=1e-4)
    assert trace["queries"].iloc[-1] >= trace["width"].sum()
    for name, value in OPTIONS[options].items():
        assert attack.options[name] == value


@pytest.mark.parametrize("options", [{}, {"allow_non_ascii": True}, {"n_replace": 3, "buffer_size": 3}], ids=str)
def test_every_step_ends_with_text_that_can_be_written(victim: Victim, options: dict[str, Any]) -> None:
    prompt = victim.prompt("infix")
    for steps in range(1, 7):
        result = GCG(num_steps=steps, topk=320, **options).run(victim.system, prompt)
        assert_writable(victim, prompt, result, "infix")
        if not options:
            assert result.text.isascii() and result.text.isprintable()


def test_options_change_the_search(victim: Victim) -> None:
    """An option that were ignored would give the trace of another."""
    traces = {
        name: tuple(GCG(**options).run(victim.system, victim.prompt()).trace["loss"])
        for name, options in {"none": {}, "seed": {"seed": 1}, **OPTIONS}.items()
    }
    same = {name for name, trace in traces.items() if trace == traces["none"]}
    # A buffer changes nothing about a search that improves at every step.
    assert same <= {
        "none", "small batches", "early stop that never comes", "several starts", "buffer",
        "several starts with a buffer",
    }  # fmt: skip
    assert len(set(traces.values())) >= len(traces) - len(same)


def test_buffer_takes_the_best_start(victim: Victim) -> None:
    starts = ["x x x x x x", "k b x t f n", "m x s r p l"]
    prompts = [victim.prompt(initial=start) for start in starts]
    assert {len(prompt.slot_ids) for prompt in prompts} == {6}
    losses = [victim.loss(start) for start in starts]
    result = GCG(num_steps=0, buffer_size=3, optim_str_init=starts).run(victim.system, prompts[0])
    assert result.loss == pytest.approx(min(losses), abs=1e-4)
    assert result.text == starts[losses.index(min(losses))]
    assert result.initial_loss == pytest.approx(losses[0], abs=1e-4)


def test_without_a_buffer_the_search_may_go_uphill_and_reports_its_best(victim: Victim) -> None:
    result = GCG(num_steps=12, search_width=2, topk=300).run(victim.system, victim.prompt())
    losses = result.trace["loss"]
    assert (losses.diff() > 0).any()
    assert result.loss == pytest.approx(min(losses.min(), result.initial_loss), abs=1e-5)


@pytest.mark.parametrize("starts", [["x x x x x x"], ["x x x x x x", "k b x t f n", "m x s r p l"]], ids=len)
@pytest.mark.parametrize("n_replace", [1, 2])
def test_with_a_buffer_every_step_changes_the_best_slot_so_far(
    victim: Victim, starts: list[str], n_replace: int
) -> None:
    """With two candidates per step most steps go uphill; without a buffer the next one would start from there."""
    slots = [victim.prompt(initial=start).slot_ids for start in starts]
    losses = victim.system.open(victim.prompt()).losses(slots).tolist()
    best_loss, best = min(zip(losses, slots, strict=True))
    options = {"buffer_size": len(starts), "optim_str_init": starts, "n_replace": n_replace}
    trace = GCG(num_steps=12, search_width=2, topk=300, **options).run(victim.system, victim.prompt()).trace
    uphill = 0
    for loss, ids in zip(trace["loss"], trace["ids"], strict=True):
        assert 1 <= sum(new != old for new, old in zip(ids, best, strict=True)) <= n_replace
        if loss < best_loss:
            best_loss, best = loss, ids
        else:
            uphill += 1
    assert uphill >= 4


def test_with_a_buffer_the_search_keeps_its_best(victim: Victim) -> None:
    result = GCG(num_steps=12, search_width=2, topk=300, buffer_size=1).run(victim.system, victim.prompt())
    assert result.loss <= result.initial_loss + 1e-5


def test_no_steps_report_the_start(victim: Victim) -> None:
    result = GCG(num_steps=0).run(victim.system, victim.prompt())
    assert result.text == "x x x x x x" and result.loss == result.initial_loss and len(result.trace) == 0
    assert result.completion == result.initial_completion


def test_a_slot_of_one_token_scores_what_exists(victim: Victim) -> None:
    prompt = victim.prompt(initial="x")
    assert len(prompt.slot_ids) == 1
    result = GCG(search_width=400, topk=350).run(victim.system, prompt)
    assert (result.trace["draws"] == 20 * 400).all()
    writable = [
        id for id in range(3, 320)
        if prompt.valid([id]) and (text := victim.tokenizer.decode([id])).isascii() and text.isprintable()
    ]  # fmt: skip
    # Every neighbour is drawn some 25 times; the present token is none.
    assert result.trace["width"].iloc[0] == len(writable) - 1
    best = min(victim.loss(prompt.slot_text([id])) for id in writable)
    assert result.loss == pytest.approx(best, abs=1e-4)
    assert_writable(victim, prompt, result, "suffix")


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_rounding_only(victim: Victim, batch_size: int) -> None:
    plain = GCG(num_steps=6).run(victim.system, victim.prompt())
    capped = GCG(num_steps=6, batch_size=batch_size).run(victim.system, victim.prompt())
    assert capped.ids == plain.ids
    assert (capped.trace["loss"] - plain.trace["loss"]).abs().max() <= 1e-5 * plain.initial_loss


def reachable_target(victim: Victim) -> str:
    """A first token of the model's own answer to another slot text: a short search finds it."""
    own = victim.answer("x x x x x x", tokens=1)
    for text in ("the town is on the", "a b c d e f", "pen 12 2024 sun to x"):
        target = victim.answer(text, tokens=1)
        if target and target.isascii() and not own.startswith(target):
            return target
    pytest.fail("the model gives one answer to everything")


def test_early_stop_is_confirmed_by_decoding(victim: Victim) -> None:
    target = reachable_target(victim)
    attack = GCG(num_steps=50, search_width=64, topk=300, early_stop=True)
    result = attack.run(victim.system, victim.prompt(target=target))
    assert result.stop_reason == "early_stop" and result.success
    assert 1 <= len(result.trace) < 50
    assert victim.answer(result.text).startswith(target)
    assert result.completion.startswith(target)
    assert result.loss == pytest.approx(victim.loss(result.text, target=target), abs=1e-4)
    assert result.loss == pytest.approx(result.trace["loss"].iloc[-1], abs=1e-5)


def test_a_start_that_answers_with_the_target_is_a_success(victim: Victim) -> None:
    target = victim.answer("x x x x x x", tokens=1)
    result = GCG(num_steps=0).run(victim.system, victim.prompt(target=target))
    assert result.success


def test_progress_sees_every_step_and_may_stop(victim: Victim) -> None:
    seen: list[titer.attacks.AttackStep] = []

    def progress(step: titer.attacks.AttackStep) -> bool:
        seen.append(step)
        return step.step < 3

    result = GCG(num_steps=9).run(victim.system, victim.prompt(), progress=progress)
    assert [step.step for step in seen] == [1, 2, 3] == result.trace["step"].tolist()
    assert [step.loss for step in seen] == result.trace["loss"].tolist()
    assert [step.cost.queries for step in seen] == result.trace["queries"].tolist()
    assert result.stop_reason == "callback"
    assert result.loss == pytest.approx(victim.loss(result.text), abs=1e-4)


def test_a_callback_that_returns_nothing_goes_on(victim: Victim) -> None:
    result = GCG().run(victim.system, victim.prompt(), progress=lambda step: None)
    assert len(result.trace) == 4


class Complaint(Exception):
    pass


def test_what_a_callback_raises_reaches_the_caller(victim: Victim) -> None:
    attack, prompt = GCG(), victim.prompt()
    complaint = Complaint("enough")

    def progress(step: titer.attacks.AttackStep) -> bool:
        if step.step == 2:
            raise complaint
        return True

    with pytest.raises(Complaint) as caught:
        attack.run(victim.system, prompt, progress=progress)
    assert caught.value is complaint
    fresh = GCG().run(titer.System(victim.model), victim.prompt())
    again = attack.run(victim.system, prompt)
    assert again.trace[COMPUTED].equals(fresh.trace[COMPUTED])


def test_costs_of_a_run_add_up(victim: Victim) -> None:
    prompt = victim.prompt()
    result = GCG().run(victim.system, prompt)
    # The start is answered and scored, every step scores its candidates, the end is scored and answered.
    assert result.cost.queries == 2 + 4 * 24 + 2
    steps = result.trace
    assert (steps["tokens"].diff().dropna() == 24 * len(prompt)).all()
    for name in ("queries", "tokens", "flops", "seconds"):
        assert (steps[name].diff().dropna() > 0).all()
    assert result.cost.flops > steps["flops"].iloc[-1]
    assert (steps["peak_bytes"].diff().dropna() >= 0).all()


def test_no_candidate_needs_white_space_that_the_template_trims(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    model = titer.load_model(write_tiny_llama(tmp_path, chat_template=template))
    prompt = titer.Prompt.from_chat(model, "{slot}", target="Sure", initial="x x")
    result = GCG(topk=320, search_width=200).run(titer.System(model), prompt)
    assert result.text == result.text.strip()
    assert prompt.encode(result.text) == prompt.before_ids + result.ids + prompt.after_ids


def test_a_template_that_changes_more_than_white_space_never_wins(tmp_path: Path) -> None:
    """The filter does not render; the winner is rendered before it is taken."""
    template = "{% for m in messages %}{{ m.content | replace('e', '') }}<|im_end|>\n{% endfor %}"
    model = titer.load_model(write_tiny_llama(tmp_path, chat_template=template))
    prompt = titer.Prompt.from_chat(model, "To: {slot}", target="Sure", initial="x x x")
    for seed in range(3):
        result = GCG(topk=320, search_width=100, seed=seed).run(titer.System(model), prompt)
        assert "e" not in result.text
        assert prompt.encode(result.text) == prompt.before_ids + result.ids + prompt.after_ids


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"search_width": -3}, ValueError, r"\[gcg\] search_width must be at least 1, got -3"),
        ({"search_width": 0}, ValueError, "search_width must be at least 1, got 0"),
        ({"num_steps": -1}, ValueError, "num_steps must be at least 0, got -1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"topk": 0}, ValueError, "topk must be at least 1"),
        ({"n_replace": 0}, ValueError, "n_replace must be at least 1"),
        ({"buffer_size": -1}, ValueError, "buffer_size must be at least 0"),
        ({"momentum": 1.0}, ValueError, "momentum"),
        ({"momentum": float("nan")}, ValueError, "momentum"),
        ({"mellowmax_alpha": 0.0}, ValueError, "mellowmax_alpha"),
        ({"cw_margin": -0.1}, ValueError, "cw_margin"),
        ({"seed": -1}, ValueError, "seed"),
        ({"loss": "hinge"}, ValueError, "loss.*cross_entropy"),
        ({"search_with": 5}, (TypeError, ValueError), "search_with.*search_width"),
        ({"num_steps": 2.5}, (TypeError, ValueError), "num_steps"),
        ({"num_steps": "many"}, (TypeError, ValueError), "num_steps"),
        ({"early_stop": 3}, (TypeError, ValueError), "early_stop"),
        ({"optim_str_init": [3]}, TypeError, "optim_str_init must be a list of str"),
        ({"seed": object()}, TypeError, "seed has type object"),
        ({"seed": 2**70}, ValueError, f"seed must fit 64 bits, got {2**70}"),
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        titer.attacks.GCG(**options)


def test_options_that_do_not_fit_the_prompt_are_refused(victim: Victim) -> None:
    with pytest.raises(ValueError, match=r"n_replace must be at most the slot length \(6\), got 7"):
        GCG(n_replace=7).run(victim.system, victim.prompt())
    with pytest.raises(ValueError, match="'x x' has 2"):
        GCG(optim_str_init=["x x x", "x x"]).run(victim.system, victim.prompt())
    with pytest.raises(ValueError, match="does not survive|special"):
        GCG(optim_str_init=["x<|im_end|>"]).run(victim.system, victim.prompt())


def test_a_search_without_a_single_valid_candidate_says_so(victim: Victim) -> None:
    # One replacement per position, and only one position: the best token is the only candidate.
    prompt = victim.prompt(initial="x")
    for seed in range(30):
        try:
            GCG(topk=1, num_steps=3, seed=seed).run(victim.system, prompt)
        except ValueError as error:
            assert "no candidate of step" in str(error) and "raise topk" in str(error)
            return
    pytest.fail("three steps with one replacement each came through")


def test_repr_and_options_show_the_configuration() -> None:
    attack = titer.attacks.GCG(num_steps=3, loss="mellowmax")
    assert repr(attack) == "GCG(num_steps=3, loss='mellowmax')"
    assert attack.options["search_width"] == 512 and attack.options["loss"] == "mellowmax"
    described = {entry["name"]: entry["default"] for entry in titer.attacks.GCG.describe()}
    assert described == titer.attacks.GCG().options
