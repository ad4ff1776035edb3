"""What must hold before a command starts its work. Where it does not, the user has to change the command.

What goes wrong after this is a failure of the run, and ends with another exit code.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titer.cli.exit_codes import WrongUsageError, wrong_usage

if TYPE_CHECKING:
    from titer import Model, Prompt
    from titer.attacks import GCG


def require_writable(file: Path, where: str) -> None:
    """Find out now, not after hours, that a file cannot be written."""
    if file.is_dir():
        raise WrongUsageError(f"[{where}] expected a file to write, got a folder ({file})")
    if not file.parent.is_dir():
        raise WrongUsageError(f"[{where}] the folder {file.parent} does not exist; create it first")
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}."):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise WrongUsageError(f"[{where}] cannot write into the folder {file.parent}: {reason}") from None


def require_fresh(checkpoint: Path, resume: bool, where: str) -> None:
    """Refuse to overwrite an interrupted run; say so where there is none to go on with."""
    if checkpoint.exists() and not resume:
        raise WrongUsageError(
            f"[{where}] {checkpoint} holds an interrupted run; add --resume to go on, or remove it to start anew"
        )
    if resume and not checkpoint.exists():
        print(f"titer: there is no checkpoint {checkpoint}; the run starts from the beginning", file=sys.stderr)


def require_device(device: str, where: str) -> None:
    """Refuse a device that torch does not know or find, or that this library was not built for."""
    import torch

    from titer.loading import require_backend

    with wrong_usage(RuntimeError):
        kind = torch.device(device).type
    with wrong_usage(ValueError):
        require_backend(device)
    if kind == "cuda" and not torch.cuda.is_available():
        raise WrongUsageError(f"[{where}] --device is {device}, but torch finds no CUDA device here")


def require_fit(attack: GCG, model: Model, prompt: Prompt, checkpoint: Path) -> None:
    """Refuse options, a prompt or a checkpoint that do not fit each other or the model."""
    import titer

    options = attack.options
    with wrong_usage(ValueError):
        starts = [prompt.with_slot(text) for text in options["optim_str_init"]] or [prompt]
    lengths = [len(start.slot_ids) for start in starts]
    if len(set(lengths)) > 1:
        raise WrongUsageError(
            f"[gcg] the texts of optim_str_init must have the same number of tokens, got {', '.join(map(str, lengths))}"
        )
    if options["n_replace"] > lengths[0]:
        raise WrongUsageError(
            f"[gcg] n_replace must be at most the slot length ({lengths[0]}), got {options['n_replace']}"
        )
    if len(starts[0]) > model.max_length:
        with wrong_usage(ValueError):
            titer.System(model).open(starts[0])  # some models take more than they were trained with
    if checkpoint.exists():
        _require_same_search(checkpoint, options, model, starts[0])


def _require_same_search(checkpoint: Path, options: dict[str, Any], model: Model, start: Prompt) -> None:
    """Refuse the checkpoint of another search. One that cannot be read is left to the attack, which says why."""
    from safetensors import SafetensorError, safe_open

    import titer

    try:
        with safe_open(checkpoint, framework="numpy") as file:
            stored: dict[str, Any] = dict(json.loads(file.metadata()["identity"]))
        names = list(dict(stored["options"]))  # those that shape the search
    except (SafetensorError, OSError, TypeError, KeyError, ValueError):
        return
    asked: dict[str, Any] = {
        "system": titer.System(model).fingerprint,
        "options": {name: options.get(name) for name in names},
    }
    asked |= {name: getattr(start, name) for name in ("before_ids", "slot_ids", "after_ids", "target_ids")}
    for name, value in asked.items():
        if stored.get(name) != value:
            raise WrongUsageError(
                f"[checkpoint] it belongs to another search: '{name}' differs; resume with the model, options and "
                f"prompt it was made with, or remove it ({checkpoint})"
            )
