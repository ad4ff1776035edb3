"""What a session says that it has spent is what it has spent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import titer
from model_cases import CASES, VOCABULARY, make_module, pair, random_slots, tokenizer
from op_recorder import OpRecorder
from test_scorer import open_prompt
from transformers_oracle import OBJECTIVES


def test_queries_and_tokens_are_exact() -> None:
    prompt = open_prompt("infix")
    for kind in (titer.CandidateScorer, titer.ReferenceScorer):
        session = kind(pair("biases").model, prompt)
        assert (session.cost.queries, session.cost.tokens) == (0, 0)
        session.losses(random_slots(prompt, 7, 1, seed=0))
        session.losses(torch.tensor([prompt.slot_ids] * 5))  # equal ones are asked for, too
        session.token_gradient(torch.tensor(prompt.slot_ids))
        assert (session.cost.queries, session.cost.tokens) == (12, 12 * len(prompt))


def test_a_generated_text_is_a_query() -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair("biases").model, prompt)
    answer = session.generate(" the town", max_new_tokens=5)
    assert session.cost.queries == 1
    assert session.cost.tokens == len(prompt.encode(" the town")) + len(answer.ids)


@pytest.mark.parametrize("shape", ["suffix", "prefix", "infix", "long target", "slot of one token"])
@pytest.mark.parametrize("case", CASES)
def test_flops_are_those_of_the_operations_that_ran(case: str, shape: str) -> None:
    """Counted from the shapes of every matrix product and attention."""
    prompt = open_prompt(shape)
    with OpRecorder() as opening:
        session = titer.CandidateScorer(pair(case).model, prompt)
    assert session.cost.flops == pytest.approx(opening.flops, rel=0.01)
    with OpRecorder() as scoring:
        session.losses(random_slots(prompt, 130, 2, seed=1)[:, : len(prompt.slot_ids)])
    assert session.cost.flops - opening.flops == pytest.approx(scoring.flops, rel=0.01)
    before = session.cost.flops
    for objective in OBJECTIVES:
        with OpRecorder() as gradient:
            session.token_gradient(torch.tensor(prompt.slot_ids), **objective)
        assert session.cost.flops - before == pytest.approx(gradient.flops, rel=0.01)
        before = session.cost.flops
    with OpRecorder() as choosing:
        inner = session.embedding_gradient(torch.tensor(prompt.slot_ids))
        session.promising_tokens(inner, torch.ones(VOCABULARY, dtype=torch.bool), 4)
    product = 2 * len(prompt.slot_ids) * inner.shape[1] * VOCABULARY  # inside token_gradient_topk
    assert session.cost.flops - before == pytest.approx(choosing.flops + product, rel=0.01)
    before = session.cost.flops
    with OpRecorder() as rebasing:
        session.rebase(random_slots(prompt, 1, 1, seed=2)[0])
    assert session.cost.flops - before == pytest.approx(rebasing.flops, rel=0.01)


@pytest.mark.parametrize("case", ["grouped heads, tied", "mistral, window of 8"])
def test_flops_of_generation_are_those_that_ran(case: str) -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair(case).model, prompt)
    before = session.cost.flops
    with OpRecorder() as recorder:
        session.generate(" the town", max_new_tokens=9)
    assert session.cost.flops - before == pytest.approx(recorder.flops, rel=0.01)


def test_reuse_saves_operations() -> None:
    """A candidate that changes late costs less than one that changes early."""
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair("biases").model, prompt)
    base = torch.tensor(prompt.slot_ids)
    spent = []
    for position in range(len(base)):
        before = session.cost.flops
        session.losses(base.scatter(0, torch.tensor([position]), 9)[None])
        spent.append(session.cost.flops - before)
    assert spent == sorted(spent, reverse=True) and len(set(spent)) == len(base)
    before = session.cost.flops
    session.losses(base.scatter(0, torch.tensor([0]), 9).repeat(10, 1))
    assert session.cost.flops - before == spent[0]


def test_seconds_grow() -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(pair("biases").model, prompt)
    opened = session.cost.seconds
    session.losses(random_slots(prompt, 7, 1, seed=0))
    assert 0 < opened < session.cost.seconds


MEASURE_PEAK = """
import sys, torch, titer
from pathlib import Path

def memory(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024

model = titer.load_model(sys.argv[1])
prompt = titer.Prompt.from_text(model.tokenizer, "Tell me about {slot} now:\\n", "Sure, here is the answer" * 3)
generator = torch.Generator().manual_seed(0)
width = int(sys.argv[2])
slots = torch.tensor(prompt.slot_ids).repeat(width, 1)
positions = torch.randint(len(prompt.slot_ids), (width, 1), generator=generator)
slots = slots.scatter(1, positions, torch.randint(3, 300, (width, 1), generator=generator))
model(slots[:1])
Path("/proc/self/clear_refs").write_text("5")  # the peak of importing is not what is asked
before = memory("VmRSS")
session = titer.CandidateScorer(model, prompt)
session.token_gradient(torch.tensor(prompt.slot_ids))
session.losses(slots)
print(memory("VmHWM") - before, session.cost.peak_bytes)
"""


def test_peak_memory_does_not_grow_with_the_width(tmp_path: Path) -> None:
    """Hidden states of 512 candidates in one block would take 75 MB here, their logits 80 MB."""
    module = make_module(hidden_size=256, intermediate_size=768, num_hidden_layers=4, vocab_size=4096)
    module.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(_tokenizer_json())
    peaks = {}
    for width in (64, 512):
        run = subprocess.run(
            [sys.executable, "-c", MEASURE_PEAK, str(tmp_path), str(width)], capture_output=True, text=True, check=True
        )
        peaks[width], stated = map(int, run.stdout.split())
        assert abs(stated - peaks[width]) < 2 * 2**20
    assert peaks[512] - peaks[64] <= 5 * 2**20
    assert peaks[512] < 64 * 2**20


def _tokenizer_json() -> str:
    from tiny_models import train_tokenizer

    return str(train_tokenizer(320).to_str())


def test_peak_bytes_never_shrink() -> None:
    prompt = open_prompt("infix")
    session = titer.CandidateScorer(titer.load_model(make_module(), tokenizer=tokenizer()), prompt)
    seen = [session.cost.peak_bytes]
    for width in (200, 1):
        session.losses(random_slots(prompt, width, 1, seed=0))
        seen.append(session.cost.peak_bytes)
    assert seen == sorted(seen) and seen[0] >= 0
