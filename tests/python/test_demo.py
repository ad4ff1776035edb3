"""The demo attacks towards something that the model does not say by itself."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

import titer

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_model_neither_says_the_target_nor_is_close_to_it(smollm2_folder: Path) -> None:
    demo = runpy.run_path(str(DEMO))
    model = titer.load_model(smollm2_folder, dtype="float32")
    prompt = titer.Prompt.from_chat(model, demo["PROMPT"], demo["TARGET"], initial=demo["SLOT"])
    session = titer.System(model).open(prompt)
    assert not session.generate(demo["SLOT"], max_new_tokens=24).text.startswith(demo["TARGET"])
    assert session.losses(torch.tensor([prompt.slot_ids])).item() >= 2.0
