"""Says where the time of scoring and of generation goes: the share of each operation, as torch's profiler sees it.

    ./dev bench time_by_part [--repeats 3]

The prompts and models are those of ``scoring`` and ``generate``. A share is the time an operation spends outside the
operations it calls, of all time; printed are the median and the range over repeats. Written to
benchmarks/results/time_by_part_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

import titer
from gcg_step import MESSAGE, model_folder, prompt_parts
from generate import NEW_TOKENS, benchmark_prompts
from products import exchanged
from report import RESULTS, command, machine, machine_line, write
from scoring import CANDIDATES
from titer import models

SMALLEST_SHARE = 0.01  # what is less is summed up as "others"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    results = []
    with tempfile.TemporaryDirectory(prefix="titer-bench-") as scratch:
        for name, dtype in (("smollm2", "float32"), ("smollm2", "bfloat16"), ("small", "float32")):
            folder = model_folder(name, Path(scratch))
            results.append({"what": "scoring", "model": name, "dtype": dtype})
            results[-1] |= shares(scoring(folder, dtype), arguments.repeats)
            print(results[-1], file=sys.stderr)
    results.append({"what": "generate", "model": "smollm2", "dtype": "bfloat16"})
    results[-1] |= shares(generation("bfloat16"), arguments.repeats)
    report = {"machine": machine(), "command": command(), "results": results}
    write(arguments.out, "time_by_part_cpu", report, table(report))


def scoring(folder: Path, dtype: str) -> Callable[[], object]:
    model = titer.load_model(folder, dtype=dtype)
    initial, target = prompt_parts(folder)
    prompt = titer.Prompt.from_chat(model, MESSAGE, target, slot="{optim_str}", initial=initial)
    session = titer.CandidateScorer(model, prompt)
    candidates = exchanged(prompt.slot_ids, model.vocab_size, CANDIDATES)
    return lambda: session.losses(candidates)


def generation(dtype: str) -> Callable[[], object]:
    model = titer.load_model(models.get("smollm2"), dtype=dtype)
    prompts = benchmark_prompts("smollm2", model)
    return lambda: titer.generate(model, prompts, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)


def shares(run: Callable[[], object], repeats: int) -> dict[str, Any]:
    run()
    seconds, parts = [], []
    for _ in range(repeats):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        parts.append({event.key: event.self_cpu_time_total * 1e-6 / seconds[-1] for event in profiler.key_averages()})
    return {"seconds": seconds, "shares": parts}


def table(report: dict[str, Any]) -> str:
    lines = ["| what | model | dtype | s | operation | share, median (range) |", "|---|---|---|---|---|---|"]
    for result in report["results"]:
        what = f"{result['what']} | {result['model']} | {result['dtype']} | {statistics.median(result['seconds']):.2f}"
        names = {name for part in result["shares"] for name in part}
        of = {name: [part.get(name, 0.0) for part in result["shares"]] for name in names}
        median = {name: statistics.median(values) for name, values in of.items()}
        large = sorted((name for name in of if median[name] >= SMALLEST_SHARE), key=lambda name: -median[name])
        of["others"] = [1 - sum(of[name][i] for name in large) for i in range(len(result["shares"]))]
        for name in [*large, "others"]:
            values = of[name]
            lines.append(
                f"| {what} | {name.removeprefix('titer::')} "
                f"| {statistics.median(values):.1%} ({min(values):.1%}-{max(values):.1%}) |"
            )
            what = " | | |"
    return f"Where the time goes; {machine_line(report)}\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
