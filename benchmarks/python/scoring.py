"""Times the scoring of GCG candidates against its matrix products alone, in turn in one process.

    ./dev bench scoring [--repeats 5] [--models smollm2 small]

512 candidates, one token of a slot of 20 exchanged, a target of 16 tokens. The products are those that one call of
``losses`` makes, the head's among them: recorded with their shapes and run back to back on weights of the same number
and size, without anything between them. Attention is not among them. A figure is the ratio of both times in one repeat;
printed are the median and the range over repeats. Written to benchmarks/results/scoring_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import titer
from gcg_step import MESSAGE, SLOT_TOKENS, TARGET_TOKENS, model_folder, prompt_parts
from products import Products, exchanged, products
from report import RESULTS, command, machine, machine_line, write

CANDIDATES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["smollm2", "small"], choices=["smollm2", "small"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    results = []
    with tempfile.TemporaryDirectory(prefix="titer-bench-") as scratch:
        for name in arguments.models:
            folder = model_folder(name, Path(scratch))
            for dtype in arguments.dtypes:
                results.append({"model": name, "dtype": dtype, **compare(folder, dtype, arguments.repeats)})
                print(results[-1], file=sys.stderr)
    report = {"machine": machine(), "command": command(), "results": results}
    write(arguments.out, "scoring_cpu", report, table(report))


def compare(folder: Path, dtype: str, repeats: int) -> dict[str, Any]:
    model = titer.load_model(folder, dtype=dtype)
    initial, target = prompt_parts(folder)
    prompt = titer.Prompt.from_chat(model, MESSAGE, target, slot="{optim_str}", initial=initial)
    assert len(prompt.slot_ids) == SLOT_TOKENS
    assert len(prompt.target_ids) == TARGET_TOKENS
    session = titer.CandidateScorer(model, prompt)
    candidates = exchanged(prompt.slot_ids, model.vocab_size, CANDIDATES)
    session.losses(candidates[:32])
    shapes = products(session, candidates)
    multiply = Products(shapes, getattr(torch, dtype))
    before = session.cost.flops
    seconds: dict[str, list[float]] = {"scoring": [], "products": []}
    for repeat in range(repeats + 1):
        for name, run in (("scoring", lambda: session.losses(candidates)), ("products", multiply.run)):
            start = time.perf_counter()
            run()
            if repeat > 0:  # the first one does not count
                seconds[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["scoring"], seconds["products"], strict=True)]
    return {
        "seconds": seconds,
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
        "flops": (session.cost.flops - before) / (repeats + 1),
        "product_flops": sum(2.0 * m * k * n for m, k, n in shapes),
        "products": len(shapes),
    }


def table(report: dict[str, Any]) -> str:
    lines = [
        "| model | dtype | scoring, s | its products, s | ratio, median (range) | GFLOP/s of the products |",
        "|---|---|---|---|---|---|",
    ]
    for result in report["results"]:
        scoring, multiplied = (statistics.median(result["seconds"][key]) for key in ("scoring", "products"))
        median, low, high = result["ratio"]
        lines.append(
            f"| {result['model']} | {result['dtype']} | {scoring:.2f} | {multiplied:.2f} "
            f"| {median:.2f} ({low:.2f}-{high:.2f}) | {result['product_flops'] / multiplied / 1e9:.0f} |"
        )
    return f"Losses of {CANDIDATES} candidates; {machine_line(report)}\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
