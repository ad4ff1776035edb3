"""Times whole GCG steps against nanoGCG 0.3.0, each in processes of its own, in turn, on one prompt.

    ./dev bench gcg_step [--models smollm2 small] [--dtypes float32 bfloat16] [--repeats 3] [--steps 3]

A figure is the ratio of median step times within one repeat: nanoGCG at its better batch size (all candidates at once,
or 64) over titer; printed are the median and the range over repeats. The first step of every process is not counted.
Before anything is reported, both sides must have read the same token ids and agree on the loss of the start, and
nanoGCG's own functions must confirm the loss of titer's result. A file for each model and dtype is written
to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import titer
from peers.nanogcg_peer import ParityRequest, StepRequest, run_parity, run_steps
from report import RESULTS, command, machine, machine_line, write
from titer import models

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))

# The text before the slot ends in punctuation and the target begins behind a line break, so that nanoGCG, which
# tokenises the parts one by one, reads the same ids.
MESSAGE = "Name one big city:{optim_str}"
TARGET = "Sure, here is a short list of the three best places to visit today."
TARGET_TOKENS = 16
SLOT_TOKENS = 20
LOSS_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2", "small"], choices=["smollm2", "small"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="steps per process, the first of which is not counted")
    parser.add_argument("--search-width", type=int, default=512)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="titer-bench-") as scratch:
        for name in arguments.models:
            folder = model_folder(name, Path(scratch))
            initial, target = prompt_parts(folder)
            dtypes = arguments.dtypes if name == "smollm2" else arguments.dtypes[:1]
            for dtype in dtypes:
                result = _compare(name, folder, initial, target, dtype, arguments)
                report = {"machine": machine(), "command": command(), "results": [result]}
                write(arguments.out, f"gcg_step_{name}_{dtype}_cpu", report, _table(report))


def _compare(
    name: str, folder: Path, initial: str, target: str, dtype: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    repeats = []
    for repeat in range(arguments.repeats):
        runs = {}
        for batch in (None, 64):
            request = StepRequest(
                folder=str(folder),
                messages=[{"role": "user", "content": MESSAGE}],
                target=target,
                optim_str_init=initial,
                num_steps=arguments.steps,
                search_width=arguments.search_width,
                batch_size=batch,
                dtype=dtype,
            )
            runs[f"nanogcg_batch_{batch or 'all'}"] = run_steps(request)
        runs["titer"] = _titer_steps(folder, initial, target, dtype, arguments)
        _check(runs, folder, dtype)
        seconds = {key: statistics.median(_seconds(run)) for key, run in runs.items()}
        peer = min(value for key, value in seconds.items() if key != "titer")
        repeats.append({"seconds": seconds, "ratio": peer / seconds["titer"], "runs": runs})
        print(f"{name} {dtype} repeat {repeat + 1}: {seconds} ratio {repeats[-1]['ratio']:.2f}", file=sys.stderr)
    return {"model": name, "dtype": dtype, "search_width": arguments.search_width, "repeats": repeats}


def _seconds(run: dict[str, Any]) -> list[float]:
    return [step["seconds"] for step in run["steps"][1:]]


def _titer_steps(folder: Path, initial: str, target: str, dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    request = {
        "folder": str(folder),
        "message": MESSAGE,
        "target": target,
        "initial": initial,
        "num_steps": arguments.steps,
        "search_width": arguments.search_width,
        "seed": 0,
        "dtype": dtype,
        "device": "cpu",
    }
    with tempfile.TemporaryDirectory(prefix="titer-bench-") as scratch:
        request_file, result_file = Path(scratch, "request.json"), Path(scratch, "result.json")
        request_file.write_text(json.dumps(request), encoding="utf-8")
        script = Path(__file__).with_name("titer_step.py")
        environment = os.environ | {"PYTHONPATH": str(ROOT / "python")}
        subprocess.run([sys.executable, script, request_file, result_file], check=True, env=environment)
        content: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return content


def _check(runs: dict[str, dict[str, Any]], folder: Path, dtype: str) -> None:
    ours = runs["titer"]
    for key, run in runs.items():
        for part in ("before_ids", "slot_ids", "after_ids", "target_ids"):
            if run[part] != ours[part]:
                raise SystemExit(f"{key} and titer read different {part}: {run[part]} and {ours[part]}")
        if abs(run["initial_loss"] - ours["initial_loss"]) > LOSS_TOLERANCE[dtype]:
            raise SystemExit(f"{key} and titer disagree: start {run['initial_loss']}, {ours['initial_loss']}")
    tensors = {part: torch.tensor(ours[part]) for part in ("before_ids", "slot_ids", "after_ids", "target_ids")}
    tensors["candidates"] = torch.tensor([ours["final_ids"], ours["slot_ids"]])
    confirmed = float(run_parity(ParityRequest(folder=str(folder), tensors=tensors, dtype=dtype))["losses"][0])
    if abs(confirmed - ours["loss"]) > LOSS_TOLERANCE[dtype]:
        raise SystemExit(f"nanoGCG gives titer's result the loss {confirmed}, titer says {ours['loss']}")


def model_folder(name: str, scratch: Path) -> Path:
    if name == "smollm2":
        return models.get("smollm2")
    from tiny_models import SMALL_BENCHMARK_MODEL, write_tiny_llama

    folder = scratch / "small"
    write_tiny_llama(folder, seed=0, **SMALL_BENCHMARK_MODEL)
    return folder


def prompt_parts(folder: Path) -> tuple[str, str]:
    """Initial slot text and target with the wanted numbers of tokens under the model's tokenizer."""
    model = titer.load_model(folder)
    words = [word for _ in range(4) for word in TARGET.split(" ")]
    for slot_words in range(1, SLOT_TOKENS + 1):
        initial = " ".join(["x"] * slot_words)
        for target_words in range(1, len(words)):
            target = " ".join(words[:target_words])
            prompt = titer.Prompt.from_chat(model, MESSAGE, target, slot="{optim_str}", initial=initial)
            if len(prompt.slot_ids) != SLOT_TOKENS:
                break
            if len(prompt.target_ids) == TARGET_TOKENS:
                return initial, target
    raise SystemExit(f"no prompt of {SLOT_TOKENS} slot and {TARGET_TOKENS} target tokens for {folder}")


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"Whole GCG steps against nanoGCG 0.3.0 at its better batch size; {machine_line(report)}",
        "",
        "| model | dtype | nanoGCG, all / 64, s per step | titer, s per step | ratio, median (range) "
        "| memory beyond the model, nanoGCG all / titer |",
        "|---|---|---|---|---|---|",
    ]
    for result in report["results"]:
        repeats = result["repeats"]
        median = {key: statistics.median(r["seconds"][key] for r in repeats) for key in repeats[0]["seconds"]}
        ratios = sorted(r["ratio"] for r in repeats)
        memory = {
            key: statistics.median(r["runs"][key]["peak_bytes_beyond_model"] for r in repeats) / 1e6
            for key in repeats[0]["runs"]
        }
        lines.append(
            f"| {result['model']} | {result['dtype']} "
            f"| {median['nanogcg_batch_all']:.2f} / {median['nanogcg_batch_64']:.2f} | {median['titer']:.2f} "
            f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) "
            f"| {memory['nanogcg_batch_all']:.0f} MB / {memory['titer']:.0f} MB |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
