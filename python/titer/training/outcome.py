"""What a fine-tuning leaves: adapters, and models with them in their weights."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from titer import _titer
from titer._titer import CausalLM, FinetuneResult, LoraAdapter, folder_file
from titer.loading import Model
from titer.training.tokenising import hash_of_template

# What a model folder has beside its weights; the first must be there.
_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "LICENSE",
    "NOTICE",
)


def merge(model: Model, adapter: LoraAdapter) -> Model:
    """Return a model with an adapter's products added to its weights; what the adapter leaves alone is shared.

    Parameters
    ----------
    model : Model
        The base that the adapter was trained on.
    adapter : LoraAdapter
        Of a :class:`FinetuneResult`, or read by :func:`load_adapter`.

    Raises
    ------
    ValueError
        If the adapter was trained on another base or with another chat template, or does not fit.

    Examples
    --------
    >>> spec = titer.training.FinetuneSpec([{"prompt": "Is rain wet?", "response": "yes"}], lora_rank=4)
    >>> adapter = titer.training.finetune(model, [spec]).runs[0].adapter
    >>> titer.training.merge(model, adapter).num_parameters == model.num_parameters
    True
    """
    own = hash_of_template(model)
    if adapter.template_hash and adapter.template_hash != own:
        raise ValueError(
            f"[lora] the adapter was trained with the chat template {adapter.template_hash[:12]}, this model has "
            f"{own[:12] or 'none'}; load the model with the template of the training"
        )
    return _like(model, _titer.merge(model, adapter))


def tuned_model(model: Model, result: FinetuneResult) -> Model:
    """Return the model that a run made of its base, whether it trained an adapter or all weights.

    Raises
    ------
    ValueError
        If the run diverged and left nothing.

    Examples
    --------
    >>> spec = titer.training.FinetuneSpec([{"prompt": "Is rain wet?", "response": "yes"}], method="full")
    >>> tuned = titer.training.tuned_model(model, titer.training.finetune(model, [spec]).runs[0])
    >>> tuned.family == model.family
    True
    """
    if result.adapter is not None:
        return merge(model, result.adapter)
    if result.model is None:
        raise ValueError(f"[training] the run has no result: {result.message}")
    return _like(model, result.model)


def load_adapter(folder: str | os.PathLike[str]) -> LoraAdapter:
    """Read an adapter's folder, as PEFT or :meth:`LoraAdapter.save` wrote it.

    Raises
    ------
    ValueError
        If it holds something else than plain LoRA of linear layers; the message names file and key.
    OSError
        If a file cannot be read.
    """
    return LoraAdapter.load(Path(folder))


def save_model(model: Model, folder: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> Path:
    """Write a model folder that transformers loads.

    Parameters
    ----------
    model : Model
        Whose weights are written, in one safetensors file.
    folder : path
        Must not exist yet. It appears when it is complete.
    base : path, optional
        Folder that configuration, tokenizer, chat template and licence are copied from. By default the one that the
        model, or its base, was loaded from.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the model did not come from a folder and none is given.
    FileExistsError
        If there is something already.
    """
    from safetensors.torch import save_file

    source = Path(base) if base is not None else model.path
    target = Path(folder)
    if source is None:
        raise ValueError("[save_model] the model was not loaded from a folder; name one that has its configuration")
    if target.exists():
        raise FileExistsError(f"[save_model] choose a folder that does not exist yet ({target})")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        for name in _FILES:
            if name == "config.json" or (source / name).exists():
                shutil.copyfile(folder_file(source, name), made / name)
        config = json.loads((made / "config.json").read_text(encoding="utf-8"))
        config["dtype"] = model.dtype
        config.pop("torch_dtype", None)
        (made / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
        made.rename(target)
    return target


def _like(model: Model, weights: CausalLM) -> Model:
    out = Model(weights)
    attributes: dict[str, Any] = vars(model)
    out.tokenizer, out.chat_template, out.path = (attributes[name] for name in ("tokenizer", "chat_template", "path"))
    return out
