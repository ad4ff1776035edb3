"""Times the re-tokenisation check of GCG candidates against encoding the prompts anew with `tokenizers`.

    ./dev bench filter [--repeats 15]

512 candidates, one token of a slot of 20 exchanged at random, in a chat prompt of SmolLM2-135M-Instruct from the cache
(`titer models get smollm2`). `tokenizers` only encodes texts that are ready, in a loop and as a batch on all cores;
titer is asked about all candidates in one call, with a tokenizer that has seen nothing before. Both must agree. A
figure is the ratio of both times in one repeat. Written to benchmarks/results/filter_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import tokenizers
import torch

import titer
from report import RESULTS, command, machine, machine_line, write
from titer import models

CANDIDATES = 512
BEFORE = "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\nName one big city:"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
INITIAL = " x" * 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    file = models.get("smollm2") / "tokenizer.json"
    theirs = tokenizers.Tokenizer.from_file(str(file))
    seconds: dict[str, list[float]] = {"loop": [], "batch": [], "titer": []}
    kept = 0
    for repeat in range(arguments.repeats + 1):
        prompt = titer.Prompt.from_text(
            titer.Tokenizer.from_file(str(file)), BEFORE + "{slot}" + AFTER, "Sure", initial=INITIAL
        )
        candidates = torch.tensor(exchanged(prompt.slot_ids, theirs.get_vocab_size(), random.Random(repeat)))
        texts = [BEFORE + prompt.slot_text(ids) + AFTER for ids in candidates.tolist()]
        whole = [[*prompt.before_ids, *ids, *prompt.after_ids] for ids in candidates.tolist()]
        start = time.perf_counter()
        valid = prompt.valid(candidates)
        after_ours = time.perf_counter()
        loop = [theirs.encode(text, add_special_tokens=False).ids for text in texts]
        after_loop = time.perf_counter()
        batch = [encoding.ids for encoding in theirs.encode_batch_fast(texts, add_special_tokens=False)]
        end = time.perf_counter()
        ours = valid.tolist()
        if batch != loop or ours != [a == b for a, b in zip(loop, whole, strict=True)]:
            raise SystemExit("titer and tokenizers disagree about a candidate")
        if repeat > 0:  # the first one does not count
            kept += sum(ours)
            seconds["titer"].append(after_ours - start)
            seconds["loop"].append(after_loop - after_ours)
            seconds["batch"].append(end - after_loop)
    report = {
        "machine": machine(),
        "versions": {"tokenizers": tokenizers.__version__},
        "command": command(),
        "valid": kept / CANDIDATES / arguments.repeats,
        "seconds": seconds,
    }
    write(arguments.out, "filter_cpu", report, table(report))


def exchanged(slot_ids: list[int], vocab_size: int, rng: random.Random) -> list[list[int]]:
    """The slot with one token exchanged, many times; some do not survive the way through text."""
    candidates = []
    for _ in range(CANDIDATES):
        ids = list(slot_ids)
        ids[rng.randrange(len(ids))] = rng.randrange(300, vocab_size)
        candidates.append(ids)
    return candidates


def table(report: dict[str, Any]) -> str:
    seconds = report["seconds"]
    lines = ["| against | tokenizers, ms | titer, ms | ratio, median (range) |", "|---|---|---|---|"]
    for key, name in (("loop", "encode in a loop"), ("batch", "encode_batch_fast, all cores")):
        ratios = [their / our for their, our in zip(seconds[key], seconds["titer"], strict=True)]
        lines.append(
            f"| {name} | {1e3 * statistics.median(seconds[key]):.3g} | {1e3 * statistics.median(seconds['titer']):.3g} "
            f"| {statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f}) |"
        )
    return (
        f"{CANDIDATES} candidates, {report['valid']:.0%} of them valid, tokenizers {report['versions']['tokenizers']}; "
        f"{machine_line(report)}\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
