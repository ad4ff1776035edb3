"""Writes README's table of measurements from the files in benchmarks/results/.

    ./dev bench readme_table

``./dev bench`` does so at its end. A row says what one figure is, what it is held against, and which file holds its
times; a benchmark without a results file has no row.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernels import by_case
from report import RESULTS

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- measurements -->", "<!-- end of measurements -->"
MODELS = {"smollm2": "SmolLM2-135M", "small": "3 M-parameter llama", "clinic": "clinic model of 1.2 M"}
ELEMENTWISE = {"rms_norm": "`rms_norm`", "rope": "`rope`", "gated_activation": "SwiGLU"}


def main() -> None:
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")


def updated(readme: str) -> str:
    """README with its table written anew."""
    attacks = [*gcg_steps(), *scoring(), *generation(), *retokenization(), *memory()]
    rows = [*attacks, *finetunes(), *full_training(), *head(), *elementwise()]
    header = ["measured on CPU", "against", "theirs", "titer", "ratio, median (range)"]
    lines = [f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]]
    before, rest = readme.split(BEGIN)
    return "\n".join([f"{before}{BEGIN}", *lines, f"{END}{rest.split(END)[1]}"])


def results(name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(RESULTS.glob(f"{name}_cpu.json")):
        yield file, json.loads(file.read_text(encoding="utf-8"))


def linked(text: str, file: Path) -> str:
    return f"[{text}](benchmarks/results/{file.stem}.md)"


def spread(values: list[float], unit: str = "") -> str:
    """Median and range, or what is known if it was measured once."""
    if len(values) == 1:
        return f"{values[0]:.2f}{unit} (once)"
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f}-{max(values):.2f})"


def gcg_steps() -> Iterator[list[str]]:
    for file, report in results("gcg_step_*"):
        for result in report["results"]:
            repeats = result["repeats"]
            median = {name: statistics.median(r["seconds"][name] for r in repeats) for name in repeats[0]["seconds"]}
            theirs = min((name for name in median if name != "titer"), key=lambda name: median[name])
            cells = []
            for name in (theirs, "titer"):
                memory = statistics.median(r["runs"][name]["peak_bytes_beyond_model"] for r in repeats)
                cells.append(f"{median[name]:.1f} s, {memory / 1e6:.0f} MB")
            what = linked(f"GCG step, {MODELS[result['model']]}, {result['dtype']}", file)
            ratio = spread([repeat["ratio"] for repeat in repeats])
            yield [what, "nanoGCG 0.3.0, its better batch size", *cells, ratio]


def scoring() -> Iterator[list[str]]:
    for file, report in results("scoring"):
        for result in report["results"]:
            ours, theirs = (result["seconds"][name] for name in ("scoring", "products"))
            what = linked(f"scoring, {MODELS[result['model']]}, {result['dtype']}", file)
            ratio = spread([a / b for a, b in zip(ours, theirs, strict=True)])
            times = [f"{statistics.median(seconds):.2f} s" for seconds in (theirs, ours)]
            yield [what, "its matrix products alone, by torch", *times, f"takes {ratio}"]


def generation() -> Iterator[list[str]]:
    for file, report in results("generate_*"):
        for result in report["results"]:
            ours, theirs = (result["seconds"][name] for name in ("titer", "transformers"))
            case = (
                f"{len(result['prompt_tokens'])} prompts, 32 tokens each, {MODELS[result['model']]}, {result['dtype']}"
            )
            what = linked(f"`generate`, {case}", file)
            times = [f"{statistics.median(seconds):.2f} s" for seconds in (theirs, ours)]
            ratio = spread([a / b for a, b in zip(theirs, ours, strict=True)])
            yield [what, f"transformers {report['versions']['transformers']}", *times, ratio]


def retokenization() -> Iterator[list[str]]:
    for file, report in results("filter"):
        ours = report["seconds"]["titer"]
        for name, peer in (("loop", "`tokenizers`, encode in a loop"), ("batch", "`tokenizers`, encode_batch_fast")):
            theirs = report["seconds"][name]
            times = [f"{1e3 * statistics.median(seconds):.1f} ms" for seconds in (theirs, ours)]
            ratio = spread([a / b for a, b in zip(theirs, ours, strict=True)])
            yield [linked("re-tokenisation filter, 512 candidates", file), peer, *times, ratio]


def rates(report: dict[str, Any], operation: str, unit: str, peer: str) -> Iterator[tuple[str, float, float]]:
    """Cases of an operation that were measured beside `peer`: name, the peer's median rate, titer's."""
    for case, run in sorted(by_case(report).items()):
        name, case_name = case.split("/", 1)
        if name == operation and "titer" in run and peer in run:
            yield case_name, run[peer]["median"][unit], run["titer"]["median"][unit]


def finetunes() -> Iterator[list[str]]:
    for file, report in results("finetune"):
        for result in report["results"]:
            ours, theirs = (result["seconds_per_run_step"][name] for name in ("titer", "peft"))
            size = {name: f"{count / 1e6:.0f} MB" for name, count in result["bytes_beyond_model"].items()}
            what = linked(f"{report['runs']} LoRA runs at once, {MODELS[result['model']]}, {result['dtype']}", file)
            peer = f"transformers and PEFT {report['versions']['peft']}, one after another"
            times = [f"{1e3 * statistics.median(theirs):.0f} ms a step, {size['peft']}"]
            times += [f"{1e3 * statistics.median(ours):.0f} ms a step of a run, {size['titer']}"]
            yield [what, peer, *times, spread([a / b for a, b in zip(theirs, ours, strict=True)])]


def full_training() -> Iterator[list[str]]:
    for file, report in results("full_training"):
        for result in report["results"]:
            ours, theirs = (result["tokens_per_second"][name] for name in ("titer", "transformers"))
            what = linked(f"training of all weights, {MODELS['clinic']}, {result['dtype']}", file)
            rates = [f"{statistics.median(rate):,.0f} tokens/s" for rate in (theirs, ours)]
            ratio = spread([a / b for a, b in zip(ours, theirs, strict=True)])
            yield [what, f"transformers {report['versions']['transformers']}", *rates, ratio]


def head() -> Iterator[list[str]]:
    for file, report in results("kernels"):
        ratios = [ours / torch for _, torch, ours in rates(report, "linear_cross_entropy", "GFLOP/s", "torch")]
        if ratios:
            what = linked(f"`linear_cross_entropy`, {len(ratios)} cases", file)
            yield [what, "torch `linear` and `cross_entropy`", "", "", spread(ratios)]


def elementwise() -> Iterator[list[str]]:
    for file, report in results("kernels"):
        for operation, name in ELEMENTWISE.items():
            for case, copy, ours in rates(report, operation, "GB/s", "copy"):
                what = linked(f"{name}, {case.replace('_', ' ')}", file)
                yield [what, "a copy", f"{copy:.1f} GB/s", f"{ours:.1f} GB/s", f"{100 * ours / copy:.0f} %"]


def memory() -> Iterator[list[str]]:
    for file, report in results("peak_memory"):
        for dtype in dict.fromkeys(result["dtype"] for result in report["results"]):
            of_dtype = [result for result in report["results"] if result["dtype"] == dtype]
            widths = ", ".join(str(result["width"]) for result in of_dtype)
            used = ", ".join(f"{result['bytes_beyond_model'] / 1e6:.0f}" for result in of_dtype)
            what = linked(f"memory beyond SmolLM2-135M, {dtype}, {widths} candidates", file)
            yield [what, "", "", f"{used} MB", ""]


if __name__ == "__main__":
    main()
