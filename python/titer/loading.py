"""Loads models from folders, GGUF files and transformers modules."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer._titer import CausalLM, Tokenizer, build_info, folder_file

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from titer.chat import ChatTemplate


class Model(CausalLM):
    """A frozen language model with its tokenizer and chat template. Made by :func:`load_model`.

    Attributes
    ----------
    tokenizer : Tokenizer
        The model's tokenizer.
    chat_template : ChatTemplate or None
        None for base models without one.
    path : Path or None
        The folder it came from.
    """

    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    path: Path | None

    def __repr__(self) -> str:
        return f"Model({self.family}, {self.num_parameters / 1e6:.1f} M parameters, {self.dtype}, {self.device})"


def load_model(
    source: str | os.PathLike[str] | torch.nn.Module,
    *,
    tokenizer: PreTrainedTokenizerBase | Tokenizer | str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    device: str | None = None,
    check_finite: bool = False,
) -> Model:
    """Load a model for attacks.

    Parameters
    ----------
    source : path or transformers module
        A Hugging Face folder with `config.json`, safetensors and `tokenizer.json`; a `.gguf` file, which is converted
        once into the cache; or a transformers causal language model, whose tensors are used in place.
    tokenizer : transformers tokenizer, Tokenizer or path, optional
        Needed with a module; with a folder it replaces the folder's own.
    dtype : {"float32", "bfloat16", "float16", "float64"}, optional
        Converts the weights; by default they stay as they are stored. Not with a module.
    device : str, optional
        Where the weights go, for example ``"cuda:0"``; by default the CPU. Not with a module.
    check_finite : bool
        Look for infinities and NaN in every weight now, instead of at the first pass that meets them.

    Returns
    -------
    Model

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If the architecture, a setting, a weight or the chat template is malformed or not supported, or something
        needed is missing; the message names it. Also if this library was built without CUDA and the device needs it.
    TypeError
        If a module is quantised, wrapped by PEFT, hooked, or has parameters without data.

    Examples
    --------
    >>> model = titer.load_model(model_folder)
    >>> model.family
    'llama'
    """
    if isinstance(source, (str, os.PathLike)):
        return _load_folder(Path(source), tokenizer, dtype, device or "cpu", check_finite)
    if dtype is not None or device is not None:
        raise ValueError("[load_model] dtype and device belong to files; convert the module itself with module.to(...)")
    return _load_module(source, tokenizer, check_finite)


def require_backend(device: str) -> None:
    """Raise ValueError if this library was built without what computes on that device.

    Examples
    --------
    >>> from titer.loading import require_backend
    >>> require_backend("cpu")
    """
    if device.split(":")[0] == "cuda" and not build_info()["cuda"]:
        raise ValueError(
            f"[load_model] device is '{device}', but this library was built without CUDA; rebuild it where the CUDA "
            "toolkit (nvcc) and a CUDA build of torch are installed, or use the CPU"
        )


def _load_folder(path: Path, tokenizer: Any, dtype: str | None, device: str, check_finite: bool) -> Model:
    if path.suffix == ".gguf":
        from titer import models

        path = models.get(path)
    if not path.is_dir():
        raise FileNotFoundError(f"[load_model] expected a model folder or a .gguf file, found neither ({path})")
    require_backend(device)
    model = Model(str(path), dtype=dtype, device=device, check_finite=check_finite)
    model.path = path
    own = folder_file(path, "tokenizer.json") if tokenizer is None else tokenizer
    _attach_tokenizer(model, own, template_folder=path)
    return model


def _load_module(module: torch.nn.Module, tokenizer: Any, check_finite: bool) -> Model:
    if tokenizer is None:
        raise ValueError("[load_model] a module needs its tokenizer: load_model(module, tokenizer=...)")
    _refuse_changed_module(module)
    settings: Any = module
    config = json.loads(settings.config.to_json_string(use_diff=False))
    generation = getattr(module, "generation_config", None)
    if generation is not None and generation.eos_token_id is not None:
        config["eos_token_id"] = generation.eos_token_id
    model = Model(json.dumps(config), dict(module.state_dict(keep_vars=True)))
    require_backend(model.device)
    if check_finite:
        model.check_finite()
    model.path = None
    _attach_tokenizer(model, tokenizer, template_folder=None)
    return model


def _attach_tokenizer(model: Model, tokenizer: Any, template_folder: Path | None) -> None:
    from titer.chat import ChatTemplate

    model.chat_template = None
    if isinstance(tokenizer, Tokenizer):
        model.tokenizer = tokenizer
    elif isinstance(tokenizer, (str, os.PathLike)):
        model.tokenizer = Tokenizer.from_file(Path(tokenizer))
    else:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise TypeError(f"[load_model] expected a fast transformers tokenizer, got {type(tokenizer).__name__}")
        text = json.loads(backend.to_str())
        text["truncation"] = text["padding"] = None  # settings of a call, not of the tokenizer
        model.tokenizer = Tokenizer.from_json(json.dumps(text), type(tokenizer).__name__)
        if tokenizer.chat_template:
            model.chat_template = ChatTemplate.from_tokenizer(tokenizer)
    if model.chat_template is None and template_folder is not None:
        model.chat_template = ChatTemplate.from_folder(template_folder)


def _refuse_changed_module(module: torch.nn.Module) -> None:
    """Refuse modules that compute something else than their configuration says."""
    kind = type(module).__name__
    if hasattr(module, "peft_config"):
        raise TypeError(f"[load_model] {kind} has PEFT adapters; merge them first (merge_and_unload)")
    if getattr(module, "is_quantized", False) or getattr(module, "hf_quantizer", None) is not None:
        raise TypeError(f"[load_model] {kind} is quantised; load it without quantisation")
    for name, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
            raise TypeError(f"[load_model] module '{name}' of {kind} has hooks, which would not be run; remove them")
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise TypeError(f"[load_model] parameter '{name}' of {kind} is on the meta device: it has no data")
        if type(parameter).__name__ not in ("Parameter", "Tensor"):
            raise TypeError(
                f"[load_model] parameter '{name}' of {kind} is a {type(parameter).__name__}, expected a plain one"
            )
