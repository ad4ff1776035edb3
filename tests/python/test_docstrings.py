"""The examples in docstrings run, on a tiny model."""

from __future__ import annotations

import doctest
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import titer

MODULES = [
    "titer._titer",
    "titer.chat",
    "titer.clinic.build",
    "titer.clinic.judge",
    "titer.clinic.lexicon",
    "titer.clinic.notes",
    "titer.clinic.records",
    "titer.clinic.rules",
    "titer.clinic.success",
    "titer.clinic.unusual",
    "titer.clinic.vocabulary",
    "titer.clinic.world",
    "titer.clinic_models.practice",
    "titer.clinic_models.quality",
    "titer.clinic_models.recipe",
    "titer.clinic_models.tokenizer",
    "titer.compat.nanogcg",
    "titer.display",
    "titer.generation",
    "titer.loading",
    "titer.ops",
    "titer.sharding",
    "titer.training",
    "titer.training.finetuning",
    "titer.training.outcome",
    "titer.training.tokenising",
]


@pytest.fixture(scope="module")
def names(tiny_folder: Path) -> dict[str, Any]:
    """What examples may use without saying where it comes from."""
    model = titer.load_model(tiny_folder)
    return {
        "json": json,
        "titer": titer,
        "torch": torch,
        "model_folder": tiny_folder,
        "model": model,
        "prompt": titer.Prompt.from_chat(model, "Tell me about Saturn. {slot}", target="NO WAY"),
        "hf_model": AutoModelForCausalLM.from_pretrained(tiny_folder),
        "hf_tokenizer": AutoTokenizer.from_pretrained(tiny_folder),
    }


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert results.attempted > 0
    assert results.failed == 0
