"""Gemma 3 270M, a real model with another kind of tokenizer, is in titer what it is in transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
import torch
from transformers import PreTrainedModel

import titer

TEXTS = [
    "The Great Barrier Reef, off the coast of Queensland, is the world's largest coral reef system.",
    "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "Ünïcode — naïve café, 東京, 12345, 3.14159; and\n\n\ttabs, a\u0301 mark, \U0001fae9 and    four spaces.",
    "<start_of_turn>user\nThe capital of France?<end_of_turn>\n<table><td>1</td></table>",
    "The attending physician reviews the patient's chart. " * 70,  # longer than the sliding window of 512
]


def test_tokenizer_encodes_as_tokenizers_does(gemma3_folder: Path) -> None:
    file = gemma3_folder / "tokenizer.json"
    ours, theirs = titer.Tokenizer.from_file(file), tokenizers.Tokenizer.from_file(str(file))
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    texts = [f"a {first}{second}b" for first, second in zip(characters, characters[:0:-1], strict=False)]
    texts += TEXTS + [
        "",
        *(unit * count for unit in (" ", "\n", "\t", "ha", "\u2581", "<b>") for count in range(1, 70)),
    ]
    expected = theirs.encode_batch_fast(texts)
    assert ours.encode_batch(texts) == [encoding.ids for encoding in expected]
    for encoding in expected[-500:]:
        assert ours.decode(encoding.ids, skip_special_tokens=True) == theirs.decode(encoding.ids)


@pytest.mark.parametrize("text", TEXTS, ids=["prose", "code", "unicode", "turns", "longer than the window"])
def test_logits_equal_transformers(gemma3_folder: Path, gemma3_module: PreTrainedModel, text: str) -> None:
    model = titer.load_model(gemma3_folder, dtype="float32")
    ids = torch.tensor([model.tokenizer.encode(text)])
    with torch.no_grad():
        expected = gemma3_module(ids, use_cache=False).logits
    assert (model(ids) - expected).abs().max() <= 1e-4 * max(1.0, expected.abs().max())


def test_gcg_lowers_the_loss_that_transformers_measures(gemma3_folder: Path, gemma3_module: PreTrainedModel) -> None:
    model = titer.load_model(gemma3_folder, dtype="float32")
    prompt = titer.Prompt.from_text(
        model,
        "Tell me about Saturn. {slot}\nAnswer:",
        target=" Saturn is my favorite",
        initial="x x x x x x x x",
    )
    result = titer.attacks.GCG(num_steps=2, search_width=32, topk=64, seed=0).run(titer.System(model), prompt)
    assert prompt.encode(result.text) == prompt.before_ids + result.ids + prompt.after_ids

    def loss(slot_ids: list[int]) -> float:
        ids = torch.tensor([prompt.before_ids + slot_ids + prompt.after_ids + prompt.target_ids])
        with torch.no_grad():
            logits = gemma3_module(ids, use_cache=False).logits[0].double()
        count = len(prompt.target_ids)
        return torch.nn.functional.cross_entropy(logits[-count - 1 : -1], ids[0, -count:]).item()

    assert result.initial_loss == pytest.approx(loss(prompt.slot_ids), abs=1e-4)
    assert result.loss == pytest.approx(loss(result.ids), abs=1e-4)
    assert result.loss < result.initial_loss
