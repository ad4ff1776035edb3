"""On fixed candidates and gradients, losses and top-k sets are those of nanoGCG 0.3.0, run in its own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import titer
from tiny_models import write_tiny_llama

pytestmark = pytest.mark.usefixtures("nanogcg_folder")

TOPK = 16


def parity(folder: Path, prompt: titer.Prompt, candidates: torch.Tensor, **options: Any) -> dict[str, torch.Tensor]:
    from peers.nanogcg_peer import ParityRequest, run_parity

    tensors = {
        "before_ids": torch.tensor(prompt.before_ids, dtype=torch.int64),
        "after_ids": torch.tensor(prompt.after_ids, dtype=torch.int64),
        "target_ids": torch.tensor(prompt.target_ids),
        "slot_ids": torch.tensor(prompt.slot_ids),
        "candidates": candidates,
    }
    return run_parity(ParityRequest(str(folder), tensors, topk=TOPK, **options))


def topk_sets(gradient: torch.Tensor, banned: torch.Tensor) -> list[set[int]]:
    gradient = gradient.clone()
    gradient[:, banned] = torch.inf
    return [set(row) for row in (-gradient).topk(TOPK, dim=1).indices.tolist()]


def compare(folder: Path, prompt: titer.Prompt, model: titer.Model, vocabulary: int, **options: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    slots = torch.tensor(prompt.slot_ids).repeat(12, 1)
    positions = torch.rand(slots.shape, generator=generator).argsort(1)[:, :2]
    slots = slots.scatter(1, positions, torch.randint(3, vocabulary, positions.shape, generator=generator))
    slots[5] = slots[4]
    theirs = parity(folder, prompt, slots, **options)
    objective = {"loss": "mellowmax"} if options.get("use_mellowmax") else {}
    session = titer.CandidateScorer(model, prompt)
    losses, _ = session.score(slots, **objective)
    assert (losses - theirs["losses"]).abs().max() <= 1e-4
    gradient = session.token_gradient(torch.tensor(prompt.slot_ids), **objective)
    scale = max(1.0, theirs["token_gradient"].abs().max().item())
    assert (gradient - theirs["token_gradient"]).abs().max() <= 1e-4 * scale
    assert topk_sets(gradient, theirs["banned_ids"]) == [set(row) for row in theirs["topk_ids"].tolist()]


@pytest.mark.parametrize("mellowmax", [False, True])
@pytest.mark.parametrize("place", ["Tell me about the town. {slot}", "What is {slot} in 1987?"])
def test_losses_gradient_and_topk_are_those_of_nanogcg(tmp_path: Path, place: str, mellowmax: bool) -> None:
    folder = write_tiny_llama(tmp_path, seed=2, tie_word_embeddings=False)
    model = titer.load_model(folder)
    prompt = titer.Prompt.from_chat(model, place, target="Sure, here is", initial="x x x x x x")
    compare(folder, prompt, model, 320, use_mellowmax=mellowmax)


def test_topk_of_a_given_gradient_is_that_of_nanogcg(tiny_folder: Path) -> None:
    """Two runs on one gradient differ in ties only, and there are none; what is banned is what nanoGCG bans."""
    from peers.nanogcg_peer import ParityRequest, run_parity

    model = titer.load_model(tiny_folder)
    prompt = titer.Prompt.from_chat(model, "Tell me about the town. {slot}", target="Sure", initial="x x x x x x")
    gradient = titer.CandidateScorer(model, prompt).token_gradient(torch.tensor(prompt.slot_ids))
    tensors = {
        "before_ids": torch.tensor(prompt.before_ids),
        "after_ids": torch.tensor(prompt.after_ids),
        "target_ids": torch.tensor(prompt.target_ids),
        "slot_ids": torch.tensor(prompt.slot_ids),
        "candidates": torch.tensor([prompt.slot_ids]),
        "gradient": gradient,
    }
    theirs = run_parity(ParityRequest(str(tiny_folder), tensors, topk=TOPK))
    assert topk_sets(gradient, theirs["banned_ids"]) == [set(row) for row in theirs["topk_ids"].tolist()]
    # What a one-token search with every allowed token scores is what nanoGCG does not ban.
    short = titer.Prompt.from_chat(model, "Tell me about the town. {slot}", target="Sure", initial="x")
    wide = titer.attacks.GCG(num_steps=1, search_width=2000, topk=320, filter_ids=False).run(titer.System(model), short)
    banned = {*theirs["banned_ids"].tolist(), 0, 1, 2}
    assert wide.trace["width"].iloc[0] == 320 - len(banned) - 1


def test_smollm2_agrees_with_nanogcg(smollm2_folder: Path) -> None:
    model = titer.load_model(smollm2_folder, dtype="float32")
    prompt = titer.Prompt.from_chat(model, "Tell me about Saturn. {slot}", target="NO WAY", initial="x x x x x x")
    compare(smollm2_folder, prompt, model, 49000)
