"""Options that commands share: dtypes, and `KEY=VALUE` of what a command runs."""

from __future__ import annotations

from enum import Enum
from typing import Any


class Dtype(str, Enum):
    """Dtypes that weights can be converted to."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT64 = "float64"


def assignments(options: list[str], seed: int | None) -> list[str]:
    """Return `KEY=VALUE` texts, in which a seed that was given overrides theirs."""
    if seed is None:
        return options
    return [*(option for option in options if not option.startswith("seed=")), f"seed={seed}"]


def print_options(title: str, options: list[dict[str, Any]]) -> None:
    """Print options with defaults, meaning and range, below what `--help` prints."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for option in options:
        kind = " | ".join(option["choices"]) or option["type"]
        unit = f", {option['unit']}" if option["unit"] else ""
        limits = f" Must be {option['range']}." if option["range"] else ""
        table.add_row(f"{option['name']}={_default(option['default'])}", f"{option['doc']}{limits} ({kind}{unit})")
    Console(markup=False, highlight=False).print(table)


def _default(value: Any) -> str:
    """Return a value as it is written after `key=`."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
