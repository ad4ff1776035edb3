"""Sessions compute the same whatever surrounds the call: modes of torch, other threads, interruptions."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import titer
from model_cases import make_module, pair, random_slots, tokenizer
from test_scorer import open_prompt


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def autocast_with_inference_mode() -> Iterator[None]:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        yield


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "both": autocast_with_inference_mode,
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
}


def compute(model: titer.Model, seed: int = 0) -> list[torch.Tensor]:
    """Everything that a session and a model compute, as tensors."""
    prompt = open_prompt("infix")
    slots = random_slots(prompt, 60, 2, seed)
    session = titer.CandidateScorer(model, prompt)
    reference = titer.ReferenceScorer(model, prompt)
    return [
        session.losses(slots),
        session.token_gradient(slots[0]),
        *session.score(slots, loss="carlini_wagner"),
        reference.losses(slots[:8]),
        reference.token_gradient(slots[0]),
        model(slots[:4]),
    ]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and not one.is_inference()
        assert torch.equal(one, other)


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_modes_of_the_caller_change_nothing(surroundings: str) -> None:
    model = pair("biases").model
    expected = compute(model)
    answers = titer.generate(model, [[3, 4], [5]], max_new_tokens=4, temperature=1.0)
    with SURROUNDINGS[surroundings]():
        assert_same(compute(model), expected)
        assert titer.generate(model, [[3, 4], [5]], max_new_tokens=4, temperature=1.0) == answers


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_models_loaded_under_any_mode_are_the_same(surroundings: str, tmp_path: Path) -> None:
    module = make_module(attention_bias=True)
    module.save_pretrained(tmp_path)
    expected = compute(titer.load_model(module, tokenizer=tokenizer()))
    with SURROUNDINGS[surroundings]():
        from_module = titer.load_model(module, tokenizer=tokenizer())
        from_folder = titer.load_model(tmp_path, tokenizer=tokenizer(), check_finite=True)
        converted = titer.load_model(tmp_path, tokenizer=tokenizer(), dtype="bfloat16")
    for model in (from_module, from_folder):
        assert_same(compute(model), expected)
        with SURROUNDINGS[surroundings]():
            assert_same(compute(model), expected)
    assert torch.isfinite(compute(converted)[1]).all()


def test_modes_of_the_caller_are_left_as_they_were() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        compute(pair("biases").model)
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16
    with torch.no_grad():
        compute(pair("biases").model)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_candidates_made_under_inference_mode_are_taken() -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair("biases").model, prompt)
    slots = random_slots(prompt, 5, 1, seed=0)
    with torch.inference_mode():
        inference = slots.clone()
    assert inference.is_inference()
    assert torch.equal(session.losses(inference), session.losses(slots))
    assert torch.equal(session.token_gradient(inference[0]), session.token_gradient(slots[0]))


def test_threads_share_one_model() -> None:
    model = pair("biases").model
    seeds = range(4)
    expected = [compute(model, seed) for seed in seeds]
    for _ in range(3):
        found: dict[int, list[torch.Tensor]] = {}

        def work(seed: int, out: dict[int, list[torch.Tensor]] = found) -> None:
            out[seed] = compute(model, seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed in seeds:
            for one, other in zip(found[seed], expected[seed], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_other_python_threads_run_during_a_call() -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair("biases").model, prompt, batch_size=1)
    slots = random_slots(prompt, 300, 2, seed=0)
    done = threading.Event()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    session.losses(slots)
    during = ticks
    done.set()
    thread.join()
    assert during > 3


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupt_soon() -> Iterator[Callable[[float], None]]:
    """Start a timer whose signal handler raises."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", [titer.CandidateScorer, titer.ReferenceScorer])
def test_a_session_is_usable_after_a_signal_handler_raised(
    interrupt_soon: Callable[[float], None], kind: type[titer.CandidateScorer]
) -> None:
    prompt = open_prompt("infix")
    session = kind(pair("biases").model, prompt, batch_size=1)
    slots = random_slots(prompt, 40, 2, seed=0)
    expected = session.losses(slots)
    queries = session.cost.queries
    long = random_slots(prompt, 100_000, 3, seed=1)
    with pytest.raises(Interrupted):
        interrupt_soon(0.2)
        session.losses(long)
    assert session.cost.queries == queries
    assert torch.equal(session.losses(slots), expected)


def test_generation_ends_when_a_signal_handler_raises(interrupt_soon: Callable[[float], None]) -> None:
    model = titer.load_model(make_module(eos_token_id=None, max_position_embeddings=100000), tokenizer=tokenizer())
    with pytest.raises(Interrupted):
        interrupt_soon(0.2)
        titer.generate(model, [[3, 4]], max_new_tokens=90000)


LONG_CALL = """
import sys, torch, titer
model = titer.load_model(sys.argv[1])
prompt = titer.Prompt.from_chat(model, "Tell me {slot}", target="Sure, here")
session = titer.CandidateScorer(model, prompt, batch_size=1)
slots = torch.randint(3, 300, (10**6, len(prompt.slot_ids)), generator=torch.Generator().manual_seed(0))
before = session.losses(slots[:5])
print("started", flush=True)
try:
    session.losses(slots)
except KeyboardInterrupt:
    print("interrupted", torch.equal(session.losses(slots[:5]), before), flush=True)
"""


def test_ctrl_c_ends_a_long_call(tiny_folder: Path) -> None:
    command = [sys.executable, "-c", LONG_CALL, str(tiny_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=120)  # a million candidates take hours
        finally:
            process.kill()
    assert output == "interrupted True\n"
    assert process.returncode == 0
