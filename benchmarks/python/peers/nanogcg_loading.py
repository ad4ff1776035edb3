"""Opens a Hugging Face folder with transformers 4.47.1, whatever release wrote it.

Runs in nanoGCG's own process. The folder itself is not touched: a temporary folder links the weights and holds the
JSON files as 4.47.1 knows them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def load(folder: Path, dtype: str) -> tuple[Any, Any]:
    """Return the model (frozen, in evaluation mode) and the tokenizer of a folder."""
    if transformers.__version__ != "4.47.1":
        raise RuntimeError(f"[peers] expected transformers 4.47.1 first on PYTHONPATH, got {transformers.__version__}")
    with tempfile.TemporaryDirectory(prefix="titer-overlay-") as scratch:
        overlay = Path(scratch)
        for weights in folder.glob("*.safetensors*"):
            (overlay / weights.name).symlink_to(weights.resolve())
        (overlay / "tokenizer.json").symlink_to((folder / "tokenizer.json").resolve())
        _write(overlay / "config.json", _config(_read(folder / "config.json")))
        _write(overlay / "tokenizer_config.json", _tokenizer_config(folder))
        model = AutoModelForCausalLM.from_pretrained(overlay, torch_dtype=DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(overlay)
    return model.eval().requires_grad_(False), tokenizer


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """Give the model configuration the keys of transformers 4."""
    rope = config.pop("rope_parameters", None)
    if rope is not None:
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    return config


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """Give the tokenizer configuration the class, template and special tokens that transformers 4 expects."""
    config = _read(folder / "tokenizer_config.json")
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.pop("backend", None)
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    template = folder / "chat_template.jinja"
    if template.is_file():
        config["chat_template"] = template.read_text(encoding="utf-8")
    # nanoGCG deletes every copy of bos_token from a prompt that starts with it, on the assumption that the tokenizer
    # adds it again. A tokenizer that adds nothing (SmolLM2, whose bos_token opens every turn) would lose its turns.
    # As pad_token, which nanoGCG uses for nothing else, the token stays banned from the slot.
    if not Tokenizer.from_file(str(folder / "tokenizer.json")).encode("").ids and "bos_token" in config:
        config["pad_token"] = config.pop("bos_token")
    return config


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")
