"""Converts a GGUF file into a Hugging Face folder.

Quantised tensors are de-quantised a part at a time with the `gguf` package and stored as bfloat16. What sets the known
architectures apart is in one file each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titer.models.gguf_file import GgufFile
from titer.models.gguf_gemma3 import GEMMA3
from titer.models.gguf_llama import LLAMA
from titer.models.gguf_metadata import shown
from titer.models.gguf_tokenizer import read_tokenizer

if TYPE_CHECKING:
    import torch

    from titer.models.gguf_architecture import Architecture

# Part of the provenance; a cached folder of another version is converted again.
CONVERTER_VERSION = 1

# By `general.architecture`.
_ARCHITECTURES = {"gemma3": GEMMA3, "llama": LLAMA}

Progress = Callable[[int, int], None]
"""Called with the tensors done and the tensors in all."""


def convert_gguf(
    source: Path, folder: Path, *, provenance: dict[str, Any], progress: Progress = lambda done, total: None
) -> None:
    """Write config, tokenizer, chat template, bfloat16 weights and `titer.json` for a GGUF file into `folder`.

    Parameters
    ----------
    source
        A GGUF file whose architecture is `llama` (llama, mistral and smollm models) or `gemma3`.
    folder
        An existing, empty directory. The caller makes it appear under its final name when this returns.
    provenance
        Where the file came from; stored in `titer.json` beside the converter's version.

    Raises
    ------
    ValueError
        If the file is not GGUF, or describes something that this conversion does not know exactly.
    OSError
        If a file cannot be read or written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    file = GgufFile(source)
    if file.architecture not in _ARCHITECTURES:
        known = ", ".join(repr(name) for name in _ARCHITECTURES)
        raise file.refuse(f"general.architecture is {shown(file.architecture)}; supported: {known}")
    architecture = _ARCHITECTURES[file.architecture]
    config = architecture.config(file)
    if (tokens := len(file.metadata.texts("tokenizer.ggml.tokens"))) > config["vocab_size"]:
        raise file.refuse(f"{tokens} tokens but {config['vocab_size']} embedding rows")
    tokenizer = read_tokenizer(file.metadata.pairs, origin=file.metadata.origin)
    weights = _weights(file, architecture, config, progress)

    config |= {"eos_token_id": _one_or_list(tokenizer.end_ids)}
    for role, key in (("bos", "bos_token_id"), ("padding", "pad_token_id")):
        config[key] = file.metadata.token_id(role, tokens)
    special_ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", special_ids)
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    limit = {"model_max_length": config["max_position_embeddings"]}
    _write_json(folder / "tokenizer_config.json", tokenizer.config | limit)
    if tokenizer.chat_template is not None:
        (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    try:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # an OSError in disguise, for example a full disk
        raise OSError(f"[gguf] the weights cannot be written: {error} ({folder})") from error
    _write_json(
        folder / "titer.json",
        {
            "source": provenance,
            "name": file.metadata.text("general.name", None),
            "license": file.metadata.text("general.license", None),
            "tensor_types": sorted({tensor.type.name for tensor in file.tensors.values()}),
            "converter_version": CONVERTER_VERSION,
        },
    )


def _weights(
    file: GgufFile, architecture: Architecture, config: dict[str, Any], progress: Progress
) -> dict[str, torch.Tensor]:
    """Return the tensors of the file by Hugging Face name; every weight of the model must be there, and no other."""
    weights: dict[str, torch.Tensor] = {}
    shapes = architecture.shapes(config)
    for done, gguf_name in enumerate(file.tensors):
        progress(done, len(file.tensors))
        if gguf_name in architecture.in_config:
            continue
        name = architecture.weight_name(gguf_name)
        if name is None:
            raise file.refuse(f"tensor {shown(gguf_name)} has no place in a {file.architecture} model")
        shape = file.tensors[gguf_name].shape
        if shape != shapes.pop(name, None):
            raise file.refuse(f"tensor {shown(gguf_name)} of shape {list(shape)} does not fit")
        weights[name] = _weight(file, gguf_name, architecture, name, config)
    if shapes:
        raise file.refuse(f"{len(shapes)} tensors are missing, the first is {next(iter(shapes))}")
    progress(len(file.tensors), len(file.tensors))
    return weights


def _weight(
    file: GgufFile, gguf_name: str, architecture: Architecture, name: str, config: dict[str, Any]
) -> torch.Tensor:
    """Return a tensor as bfloat16. Only a part of it is ever there as float32."""
    import torch

    weight = torch.empty(file.tensors[gguf_name].shape, dtype=torch.bfloat16)
    matrix = weight.view(-1, weight.shape[-1])
    order = architecture.row_order(name, config)
    shift = architecture.norm_shift if name.endswith("norm.weight") else 0.0
    for rows, columns, values in file.parts(gguf_name):
        part = torch.from_numpy(values - values.dtype.type(shift)).to(torch.bfloat16)
        if not torch.isfinite(part).all():
            raise file.refuse(f"tensor {shown(gguf_name)} holds values that are not finite")
        if order is None:
            matrix[rows, columns] = part
        elif weight.dim() == 1:  # a bias
            matrix[0, order[columns]] = part[0]
        else:
            matrix[order[rows], columns] = part
    return weight


def _one_or_list(ids: list[int]) -> int | list[int] | None:
    return ids if len(ids) > 1 else (ids[0] if ids else None)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
