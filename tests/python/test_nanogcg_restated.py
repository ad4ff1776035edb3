"""The llama and the step that stand for transformers and nanoGCG on machines without them compute what those do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import titer
from invented_tokenizer import invented_tokenizer, words
from peers.nanogcg_peer import ParityRequest, run_parity
from peers.nanogcg_restated import PromptIds, RestatedStep
from plain_llama import LlamaConfig, PlainLlama, random_llama
from tiny_models import write_tiny_llama

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("llama"), tie_word_embeddings=request.param, **SIZES)


@pytest.fixture(scope="module")
def module(folder: Path) -> PlainLlama:
    content = json.loads((folder / "config.json").read_text())
    config = LlamaConfig(
        **SIZES,
        vocab_size=content["vocab_size"],
        tie_word_embeddings=content["tie_word_embeddings"],
        rms_norm_eps=content["rms_norm_eps"],
    )
    module = PlainLlama(config)
    module.load_state_dict(load_file(folder / "model.safetensors"))
    return module.eval().requires_grad_(False)


def random_ids(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(3, 320, shape, generator=torch.Generator().manual_seed(seed))


def test_plain_llama_equals_transformers(folder: Path, module: PlainLlama) -> None:
    ids = random_ids(2, 14, seed=0)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        whole, _ = module(module.embed(ids))
        first, cache = module(module.embed(ids[:, :9]))
        second, _ = module(module.embed(ids[:, 9:]), cache)
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([first, second], dim=1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("nanogcg_folder")
def test_step_equals_nanogcg(folder: Path, module: PlainLlama) -> None:
    prompt = PromptIds(*(random_ids(n, seed=n) for n in (12, 6, 5, 7)))
    candidates = torch.cat([random_ids(9, 6, seed=5), torch.tensor([[60, 61, 62, 63, 64, 65]])])
    inputs = {"before_ids": prompt.before, "after_ids": prompt.after, "target_ids": prompt.target}
    request = ParityRequest(
        str(folder), {**inputs, "slot_ids": prompt.slot, "candidates": candidates}, topk=20, batch_size=4
    )
    peer = run_parity(request)

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = tuple(tokenizer.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    step = RestatedStep(module, prompt, tokenizer, search_width=4000, topk=20, batch_size=4, special_ids=special)
    torch.testing.assert_close(step.losses(candidates), peer["losses"], rtol=1e-5, atol=1e-5)
    gradient = step.token_gradient(prompt.slot)
    torch.testing.assert_close(gradient, peer["token_gradient"], rtol=1e-4, atol=1e-6)
    survivors = candidates[peer["survives_filter"]]
    assert 0 < len(survivors) < len(candidates)
    assert torch.equal(step.retained(candidates), survivors)

    # 4000 draws leave no replacement out but with probability 120 exp(-33).
    drawn = step.sample(prompt.slot, gradient)
    assert drawn.ne(prompt.slot).sum(1).max() == 1
    for position, expected in enumerate(peer["topk_ids"]):
        replaced = drawn[:, position]
        assert set(replaced.tolist()) == {*expected.tolist(), int(prompt.slot[position])}


def test_batches_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlamaConfig(16, 16, 1, 2, 1, vocab_size=40, tie_word_embeddings=True)
    model = random_llama(config, device="cpu", dtype=torch.float32)
    ids = torch.arange(12)
    step = RestatedStep(model, PromptIds(ids[:4], ids[4:7], ids[7:9], ids[9:]), None, search_width=8, topk=5)
    assert not step.filters
    candidates = step.sample(ids[4:7], step.token_gradient(ids[4:7]))
    expected = step.losses(candidates)
    sizes = []
    forward = PlainLlama.forward

    def limited(self: PlainLlama, x: torch.Tensor, past: object = None) -> object:
        sizes.append(len(x))
        if len(x) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, x, past)  # type: ignore[arg-type]

    monkeypatch.setattr(PlainLlama, "forward", limited)
    torch.testing.assert_close(step.losses(candidates), expected)
    assert sizes == [8, 4, 2, 2, 2, 2]


def test_invented_tokenizer_reads_its_words_as_single_tokens() -> None:
    text = invented_tokenizer(21_000)
    ours, theirs = titer.Tokenizer.from_json(text), Tokenizer.from_str(text)
    assert ours.vocab_size == theirs.get_vocab_size() == 21_000
    sentence = "".join(f" {word}" for word in words(64))
    assert ours.encode(sentence) == theirs.encode(sentence).ids
    assert len(ours.encode(sentence)) == 64
    assert all(ours.encode(ours.decode([i])) == [i] for i in range(258, 21_000, 37))
    with pytest.raises(ValueError, match="vocab_size must be at least 20458, got 20457"):
        invented_tokenizer(20_457)
