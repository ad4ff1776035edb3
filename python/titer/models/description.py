"""Describes a model folder from its JSON files and safetensors headers; no weight is read."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from titer.chat import ChatTemplate


def show(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe the model in a folder.

    Parameters
    ----------
    path
        A Hugging Face folder with `config.json` and safetensors weights.

    Returns
    -------
    dict
        `path`, `architecture`, `model_type`, `parameters` (a tied head counted once), `dtypes` (parameters per stored
        dtype), `layers`, `hidden_size`, `heads`, `key_value_heads`, `context`, `vocabulary`, `tokenizer`,
        `chat_template_sha256` (None without a template), `files` (bytes per file), `bytes`, and `provenance` (what
        `titer.json` says; None for folders that titer did not write).

    Raises
    ------
    FileNotFoundError
        If the folder or one of its parts is missing.
    ValueError
        If a part is not valid JSON or safetensors, or the chat template cannot be used.
    """
    folder = Path(path)
    full_config = _read_json(folder / "config.json")
    config = full_config.get("text_config", full_config)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"[models] expected *.safetensors beside config.json, found none ({folder})")
    tied = config.get("tie_word_embeddings", full_config.get("tie_word_embeddings", False))
    dtypes: dict[str, int] = {}
    for file in weights:
        for name, (dtype, size) in _tensor_sizes(file).items():
            if not (tied and name.endswith("lm_head.weight")):
                dtypes[dtype] = dtypes.get(dtype, 0) + size
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    provenance = folder / "titer.json"
    heads = config.get("num_attention_heads", config.get("n_head"))
    return {
        "path": str(folder),
        "architecture": (full_config.get("architectures") or [None])[0],
        "model_type": config.get("model_type"),
        "parameters": sum(dtypes.values()),
        "dtypes": dtypes,
        "layers": config.get("num_hidden_layers", config.get("n_layer")),
        "hidden_size": config.get("hidden_size", config.get("n_embd")),
        "heads": heads,
        "key_value_heads": config.get("num_key_value_heads", heads),
        "context": config.get("max_position_embeddings", config.get("n_positions")),
        "vocabulary": config.get("vocab_size"),
        "tokenizer": _tokenizer_kind(folder / "tokenizer.json"),
        "chat_template_sha256": _template_hash(folder),
        "files": files,
        "bytes": sum(files.values()),
        "provenance": _read_json(provenance) if provenance.is_file() else None,
    }


def _tensor_sizes(file: Path) -> dict[str, tuple[str, int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (not a mapping)
            return {name: (part.get_dtype(), math.prod(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"[models] not a safetensors file, or a truncated one: {error} ({file})") from error


def _tokenizer_kind(file: Path) -> str | None:
    """Name the algorithm in tokenizer.json, e.g. "BPE, byte-level"; None without the file."""
    if not file.is_file():
        return None
    content = _read_json(file)
    model = content.get("model", {})
    kind = str(model.get("type", "unknown"))
    if model.get("byte_fallback"):
        return f"{kind}, byte fallback"
    stages = content.get("pre_tokenizer") or {}
    names = {stage.get("type") for stage in [stages, *stages.get("pretokenizers", [])]}
    return f"{kind}, byte-level" if "ByteLevel" in names else kind


def _template_hash(folder: Path) -> str | None:
    template = ChatTemplate.from_folder(folder)
    return None if template is None else template.hash


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # malformed UTF-8 included
        raise ValueError(f"[models] not valid JSON: {error} ({file})") from error
    if not isinstance(content, dict):
        raise ValueError(f"[models] expected a JSON object, got {type(content).__name__} ({file})")
    return content
