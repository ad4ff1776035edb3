"""`titer models`: fetches and describes model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from titer.cli.exit_codes import Json, Traceback, WrongUsageError, wrong_usage

commands = typer.Typer(help="Fetch and describe models.", no_args_is_help=True)


@commands.command()
def get(
    model: Annotated[
        str, typer.Argument(help="smollm2, gemma3-270m, a .gguf file, or a Hugging Face id such as org/name.")
    ],
    as_json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Print the folder of a model; download or convert it first where it is not in the cache."""
    folder = model_folder(model)
    print(json.dumps({"path": str(folder)}) if as_json else folder)


@commands.command()
def show(
    path: Annotated[Path, typer.Argument(help="A model folder.")],
    as_json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Describe the model in a folder, without reading its weights."""
    from titer import models

    with wrong_usage(FileNotFoundError, NotADirectoryError):
        description = models.show(path)
    print(json.dumps(description, indent=2) if as_json else _table(description))


def model_folder(name: str) -> Path:
    """Return the folder of a model by the names that `titer models get` takes.

    Raises
    ------
    WrongUsageError
        If there is no model of that name. A model that exists but cannot be used is another error.
    """
    from titer import models

    try:
        return models.get(name)
    except (ValueError, FileNotFoundError) as error:
        if Path(name).exists() or name in models.PACKAGED_MODELS:
            raise
        raise WrongUsageError(str(error)) from error


def _table(description: dict[str, Any]) -> str:
    """Lay a description out as lines of name and value; empty values are left out."""
    lines = []
    for name, value in description.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_number(part)}" for key, part in value.items())
        if value not in (None, ""):
            lines.append(f"{name:20} {_number(value)}")
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
