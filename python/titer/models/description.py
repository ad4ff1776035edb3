"""Describes a model folder from its JSON files and safetensors headers; no weight is read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from titer._titer import folder_file, read_folder_json
from titer.chat import ChatTemplate

_MAX_BYTES = 8 << 20  # of JSON in Python's objects
_LONG_PARTS = ["/model/vocab", "/model/merges", "/added_tokens"]  # of tokenizer.json


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
    full_config = _read_json(folder, "config.json")
    if full_config is None:
        raise FileNotFoundError(f"[models] expected a model folder with a config.json, found none ({folder})")
    config = full_config.get("text_config", full_config)
    if not isinstance(config, dict):
        raise ValueError(f"[models] expected 'text_config' to be an object ({folder / 'config.json'})")
    weights = [folder_file(folder, file.name) for file in sorted(folder.glob("*.safetensors"))]
    if not weights:
        raise FileNotFoundError(f"[models] expected *.safetensors beside config.json, found none ({folder})")
    tied = config.get("tie_word_embeddings", full_config.get("tie_word_embeddings", False))
    dtypes: dict[str, int] = {}
    for file in weights:
        for name, (dtype, size) in _tensor_sizes(file).items():
            if not (tied and name.endswith("lm_head.weight")):
                dtypes[dtype] = dtypes.get(dtype, 0) + size
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    architectures = full_config.get("architectures")
    heads = config.get("num_attention_heads", config.get("n_head"))
    return {
        "path": str(folder),
        "architecture": architectures[0] if isinstance(architectures, list) and architectures else None,
        "model_type": config.get("model_type"),
        "parameters": sum(dtypes.values()),
        "dtypes": dtypes,
        "layers": config.get("num_hidden_layers", config.get("n_layer")),
        "hidden_size": config.get("hidden_size", config.get("n_embd")),
        "heads": heads,
        "key_value_heads": config.get("num_key_value_heads", heads),
        "context": config.get("max_position_embeddings", config.get("n_positions")),
        "vocabulary": config.get("vocab_size"),
        "tokenizer": _tokenizer_kind(folder),
        "chat_template_sha256": _template_hash(folder),
        "files": files,
        "bytes": sum(files.values()),
        "provenance": _read_json(folder, "titer.json"),
    }


def _tensor_sizes(file: Path) -> dict[str, tuple[str, int]]:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():  # opening a pipe would wait for its writer
        raise ValueError(f"[models] expected a regular file ({file})")
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (not a mapping)
            return {name: (part.get_dtype(), math.prod(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"[models] not a safetensors file, or a truncated one: {error} ({file})") from error


def _tokenizer_kind(folder: Path) -> str | None:
    """Name the algorithm in tokenizer.json, e.g. "BPE, byte-level"; None without the file."""
    content = _read_json(folder, "tokenizer.json", without=_LONG_PARTS)
    if content is None:
        return None
    model = content.get("model")
    if not isinstance(model, dict):
        raise ValueError(f"[models] expected 'model' to be an object ({folder / 'tokenizer.json'})")
    kind = str(model.get("type", "unknown"))
    if model.get("byte_fallback"):
        return f"{kind}, byte fallback"
    stage = content.get("pre_tokenizer")
    stages = [stage, *(stage.get("pretokenizers") or [])] if isinstance(stage, dict) else []
    names = [stage.get("type") for stage in stages if isinstance(stage, dict)]
    return f"{kind}, byte-level" if "ByteLevel" in names else kind


def _template_hash(folder: Path) -> str | None:
    template = ChatTemplate.from_folder(folder)
    return None if template is None else template.hash


def _read_json(folder: Path, name: str, without: Sequence[str] = ()) -> dict[str, Any] | None:
    text = read_folder_json(folder, name, _MAX_BYTES, without)
    if text is None:
        return None
    content: dict[str, Any] = json.loads(text)
    return content
