"""The peer harness reports what nanoGCG computes: checked against a plain forward pass on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny_models import write_tiny_llama

pytestmark = pytest.mark.usefixtures("nanogcg_folder")

MESSAGES = [{"role": "user", "content": "What is the capital of the country:{optim_str}"}]
TARGET = "Sure, here is the answer"
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def random_ids(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(3, 320, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    return {
        "before_ids": random_ids(12, seed=1),
        "after_ids": random_ids(5, seed=2),
        "target_ids": random_ids(7, seed=3),
        "slot_ids": random_ids(6, seed=4),
        "candidates": torch.cat([random_ids(9, 6, seed=5), torch.tensor([[60, 61, 62, 63, 64, 65]])]),
    }


def target_losses(model: torch.nn.Module, inputs: dict[str, torch.Tensor], slot: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the target for slot embeddings [B, S, d]."""
    embed = model.get_input_embeddings()
    width, target = len(slot), inputs["target_ids"]
    parts = [embed(inputs[name]).expand(width, -1, -1) for name in ("before_ids", "after_ids", "target_ids")]
    logits = model(inputs_embeds=torch.cat([parts[0], slot, *parts[1:]], dim=1)).logits[:, -len(target) - 1 : -1]
    losses = torch.nn.functional.cross_entropy(logits.mT, target.expand(width, -1), reduction="none")
    return losses.mean(dim=1)


@pytest.mark.parametrize(
    ("config", "use_prefix_cache"),
    [({}, True), ({"rope_parameters": ROPE, "tie_word_embeddings": False}, False)],
    ids=["plain", "llama3 rope, whole prompt"],
)
def test_parity_run_gives_losses_gradient_and_topk(
    tmp_path: Path, inputs: dict[str, torch.Tensor], config: dict[str, object], use_prefix_cache: bool
) -> None:
    from peers.nanogcg_peer import ParityRequest, run_parity

    folder = write_tiny_llama(tmp_path, max_position_embeddings=64, **config)  # type: ignore[arg-type]
    model = AutoModelForCausalLM.from_pretrained(folder)
    embedding = model.get_input_embeddings().weight
    one_hot = torch.nn.functional.one_hot(inputs["slot_ids"], 320).float().requires_grad_()
    loss = target_losses(model, inputs, (one_hot @ embedding)[None]).sum()
    gradient = torch.autograd.grad(loss, one_hot)[0]

    request = ParityRequest(str(folder), inputs, topk=20, batch_size=4, use_prefix_cache=use_prefix_cache)
    result = run_parity(request)
    expected = target_losses(model, inputs, embedding[inputs["candidates"]])
    torch.testing.assert_close(result["losses"], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result["token_gradient"], gradient, rtol=1e-4, atol=1e-5)
    allowed = result["token_gradient"].clone()
    allowed[:, result["banned_ids"]] = torch.inf
    assert torch.equal(result["topk_ids"], (-allowed).topk(20, dim=1).indices)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = tokenizer.batch_decode(inputs["candidates"])
    round_trips = [
        tokenizer(text).input_ids == row for text, row in zip(texts, inputs["candidates"].tolist(), strict=True)
    ]
    assert result["survives_filter"].tolist() == round_trips
    assert set(round_trips) == {True, False}


def test_parity_run_takes_the_topk_of_a_given_gradient(tiny_folder: Path, inputs: dict[str, torch.Tensor]) -> None:
    from peers.nanogcg_peer import ParityRequest, run_parity

    gradient = torch.randn(6, 320, generator=torch.Generator().manual_seed(0))
    request = ParityRequest(str(tiny_folder), inputs | {"gradient": gradient}, topk=8, allow_non_ascii=True)
    result = run_parity(request)
    assert len(result["banned_ids"]) == 0
    assert torch.equal(result["topk_ids"], (-gradient).topk(8, dim=1).indices)


def test_step_run_reports_real_steps(tiny_folder: Path) -> None:
    from peers.nanogcg_peer import StepRequest, run_steps

    request = StepRequest(
        str(tiny_folder), MESSAGES, TARGET, num_steps=3, search_width=48, batch_size=16, topk=32, seed=1
    )
    result = run_steps(request)
    assert len(result["steps"]) == len(result["strings"]) == 3
    for step in result["steps"]:
        assert 0 < step["candidates"] <= 48
        assert 0 < step["gradient"] + step["sampling"] + step["filter"] + step["scoring"] <= step["seconds"]
    assert result["peak_bytes_beyond_model"] > 0
    assert result["versions"]["transformers"] == "4.47.1"

    # The prompt that nanoGCG saw is the whole rendered prompt, and its first loss is that of the model.
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    slot = request.optim_str_init
    chat = [{"role": "user", "content": MESSAGES[0]["content"].replace("{optim_str}", slot)}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + TARGET
    ids = {name: torch.tensor(result[name]) for name in ("before_ids", "slot_ids", "after_ids", "target_ids")}
    assert torch.cat(list(ids.values())).tolist() == tokenizer(rendered).input_ids
    with torch.no_grad():
        loss = target_losses(model, ids, model.get_input_embeddings()(ids["slot_ids"])[None])
    assert result["initial_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_failing_peer_shows_its_error(tmp_path: Path) -> None:
    from peers.nanogcg_peer import StepRequest, run_steps

    with pytest.raises(RuntimeError, match=r"(?s)nanogcg_step\.py exited with 1.*config\.json"):
        run_steps(StepRequest(str(tmp_path), MESSAGES, TARGET))
