"""Runs the benchmarks of single operations and sets what they reach beside the ceiling and torch in the same run.

    ./dev bench kernels [--filter rms_norm] [--repetitions 9]

The binary is ``build/benchmarks/cpp/titer_kernel_benchmarks`` (``./dev build``); its cases run interleaved in random
order. Element-wise operations are given as a share of the bandwidth of a copy on tensors that no cache holds, the
others as a multiple of torch's composition. A figure is the median over repetitions, with the coefficient of variation
of titer's times. Written to benchmarks/results/kernels_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from report import RESULTS, command, machine, machine_line, write

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "build" / "benchmarks" / "cpp" / "titer_kernel_benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default=".", help="regular expression that names must match")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not BINARY.exists():
        raise SystemExit(f"{BINARY} is missing; run ./dev build")

    with tempfile.TemporaryDirectory(prefix="titer-bench-") as scratch:
        output = Path(scratch, "benchmarks.json")
        options = {
            "filter": arguments.filter,
            "repetitions": arguments.repetitions,
            "enable_random_interleaving": "true",
            "report_aggregates_only": "true",
            "out_format": "json",
            "out": output,
        }
        subprocess.run([BINARY, *(f"--benchmark_{key}={value}" for key, value in options.items())], check=True)
        benchmarks = json.loads(output.read_text(encoding="utf-8"))["benchmarks"]
    report = {"machine": machine(), "command": command(), "benchmarks": benchmarks}
    write(arguments.out, "kernels_cpu", report, table(report))


def by_case(report: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Aggregates of the runs by case (operation and name), method and what they are, as in "median"."""
    runs: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for run in report["benchmarks"]:
        method, case = run["run_name"].split("/", 1)
        runs[re.sub(r"/(real_time|repeats:\d+)", "", case)][method][run["aggregate_name"]] = run
    return runs


def table(report: dict[str, Any]) -> str:
    runs = by_case(report)
    lines = ["| case | titer | torch | over torch | copy | of the copy |", "|---|---|---|---|---|---|"]
    copies = {case: run["copy"] for case, run in runs.items() if "copy" in run}
    for case, run in sorted(runs.items()):
        if "titer" not in run:
            continue
        unit = "GB/s" if "GB/s" in run["titer"]["median"] else "GFLOP/s"
        rate = {method: aggregates["median"][unit] for method, aggregates in run.items()}
        spread = 100 * run["titer"]["cv"]["real_time"] if "cv" in run["titer"] else 0.0
        copy = copies.get(case, next((c for name, c in copies.items() if same_op(name, case)), None))
        ceiling = copy["median"]["GB/s"] if copy and unit == "GB/s" else None
        lines.append(
            f"| {case} | {rate['titer']:.1f} {unit} (±{spread:.0f} %) | {cell(rate.get('torch'))} "
            f"| {cell(rate['titer'] / rate['torch'] if 'torch' in rate else None, 2)} | {cell(ceiling)} "
            f"| {cell(100 * rate['titer'] / ceiling if ceiling else None, 0)}{' %' if ceiling else ''} |"
        )
    return f"Operations on {machine_line(report)}\n\n" + "\n".join(lines) + "\n"


def same_op(a: str, b: str) -> bool:
    """Whether two cases are of one operation and dtype: a layout without a copy of its own is held against another."""
    return a.split("/")[0] == b.split("/")[0] and a.rsplit("_", 1)[-1] == b.rsplit("_", 1)[-1]


def cell(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
