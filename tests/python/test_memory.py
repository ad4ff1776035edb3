"""Scoring allocates its buffers once: torch's own record of allocations says what a later call still asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import titer
from tiny_models import write_tiny_llama

HIDDEN = 128
BLOCK_ROWS = 1024  # of which a block's hidden states have at most as many
ACTIVATIONS = BLOCK_ROWS * HIDDEN * 4 // 2  # bytes; blocks are filled to more than half
_GEMMS = ("aten::mm", "aten::addmm")  # whose libraries have scratch memory of their own


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> titer.CandidateScorer:
    folder: Path = tmp_path_factory.mktemp("model")
    write_tiny_llama(folder, hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, num_hidden_layers=2)
    model = titer.load_model(folder)
    prompt = titer.Prompt.from_chat(
        model, "Tell me about the town. {slot}", initial="x x x x x x x x", target="Sure, here"
    )
    return titer.CandidateScorer(model, prompt)


def candidates(session: titer.CandidateScorer, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor(session.prompt.slot_ids).repeat(count, 1)
    positions = torch.randint(rows.shape[1], (count,), generator=generator)
    rows[torch.arange(count), positions] = torch.randint(100, 300, (count,), generator=generator)
    return rows


def allocated_sizes(session: titer.CandidateScorer, slots: torch.Tensor) -> list[int]:
    """Bytes of every tensor that scoring these slots allocates, but for those that GEMM libraries ask for."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        session.losses(slots)
    events = recorded.profiler.kineto_results.events()
    gemms = [(e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() in _GEMMS]
    return [
        e.nbytes()
        for e in events
        if e.name() == "[memory]" and e.nbytes() > 0 and not any(a <= e.start_ns() <= b for a, b in gemms)
    ]


def test_only_the_first_call_allocates_activations(session: titer.CandidateScorer) -> None:
    first = allocated_sizes(session, candidates(session, 200, seed=0))
    assert max(first) >= ACTIVATIONS  # the record sees what it should
    again = allocated_sizes(session, candidates(session, 200, seed=1))
    assert again
    assert max(again) < ACTIVATIONS


def test_what_is_allocated_at_once_does_not_grow_with_the_number_of_candidates(
    session: titer.CandidateScorer,
) -> None:
    few = allocated_sizes(session, candidates(session, 200, seed=0))
    many = allocated_sizes(session, candidates(session, 1600, seed=2))
    assert max(many) <= max(few)
