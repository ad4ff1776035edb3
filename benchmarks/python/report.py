"""What every benchmark says of where it ran, and how its results are written."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parents[1] / "results"


def command() -> str:
    """How this run is repeated."""
    return " ".join(["./dev", "bench", Path(sys.argv[0]).stem, *sys.argv[1:]])


def script_command() -> str:
    """The same for a script of its own, which `./dev bench --device` runs."""
    return " ".join(["python3", f"benchmarks/python/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def machine_line(report: dict[str, Any]) -> str:
    """One sentence for a reader of the table."""
    where = report["machine"]
    return (
        f"{where['cores']} cores of {where['cpu']}, {where['capability']}, torch {where['torch']}; "
        f"`{report['command']}`."
    )


def write(folder: Path, name: str, report: dict[str, Any], table: str, *, show: bool = True) -> None:
    """``name.json`` with all numbers and ``name.md`` for people, which is also printed unless ``show`` is false."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(table, encoding="utf-8")
    if show:
        print(table)
