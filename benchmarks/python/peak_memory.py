"""Measures how much memory one GCG step's gradient and scoring take beyond the loaded model, at several widths.

    ./dev bench peak_memory [--widths 64 512 2048] [--dtypes float32 bfloat16]

Each figure comes from a process of its own: the high-water mark of resident memory over `token_gradient` and `losses`
of one prompt, less what was resident once the model was loaded. Code and tables of the libraries that are first used
then count, too. SmolLM2-135M-Instruct from the cache, slot of 20 and target of 16 tokens as in gcg_step. Written to
benchmarks/results/peak_memory_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import titer
from gcg_step import MESSAGE, prompt_parts
from report import RESULTS, command, machine, machine_line, write
from resident_memory import peak, resident_after_release
from titer import models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = [measure_apart(width, dtype) for dtype in arguments.dtypes for width in arguments.widths]
    report = {"machine": machine(), "command": command(), "results": results}
    write(arguments.out, "peak_memory_cpu", report, table(report))


def measure_apart(width: int, dtype: str) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-c", f"import peak_memory; peak_memory.measure({width}, {dtype!r})"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(process.stdout)


def measure(width: int, dtype: str) -> None:
    folder = models.get("smollm2")
    model = titer.load_model(folder, dtype=dtype)
    initial, target = prompt_parts(folder)
    prompt = titer.Prompt.from_chat(model, MESSAGE, target, slot="{optim_str}", initial=initial)
    slots = variants(prompt.slot_ids, width)
    before = resident_after_release()
    session = titer.CandidateScorer(model, prompt)
    session.token_gradient(prompt.slot_ids)
    session.losses(slots)
    print(json.dumps({"dtype": dtype, "width": width, "bytes_beyond_model": peak() - before}))


def variants(slot_ids: list[int], width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor(slot_ids).repeat(width, 1)
    positions = torch.randint(len(slot_ids), (width,), generator=generator)
    rows[torch.arange(width), positions] = torch.randint(100, 40000, (width,), generator=generator)
    return rows


def table(report: dict[str, Any]) -> str:
    lines = ["| dtype | candidates | memory beyond the model, MB |", "|---|---|---|"]
    for result in report["results"]:
        lines.append(f"| {result['dtype']} | {result['width']} | {result['bytes_beyond_model'] / 1e6:.0f} |")
    return f"SmolLM2-135M-Instruct; {machine_line(report)}\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
