"""Times loading and encoding against the `tokenizers` package, in one process and on one thread.

    ./dev bench tokenizer_speed [--repeats 15]

Real vocabularies where the cache has them (`titer models get`), and small trained ones for every way of cutting text.
Encoded are an invented medical note of about 60 kB and 1,000 strings of one sentence, new ones in every repeat, so that
only words repeat. A figure is the time of `tokenizers` at its fastest entry (encode_batch_fast, without threads) over
that of titer: median and range over repeats, in which both take turns. Before that the ids must be equal. Written to
benchmarks/results/tokenizer_speed.json and .md.
"""

from __future__ import annotations

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers

import titer
from report import RESULTS, command, machine, machine_line, write
from titer import models

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))

import tokenizer_cases as cases  # noqa: E402 (needs the path above)

TRAINED = [cases.gpt2, cases.llama3, cases.qwen2, cases.gpt4o, cases.tekken, cases.llama2, cases.mistral, cases.gemma]
CACHED = {"SmolLM2": "smollm2-135m-instruct", "Gemma 3": "gemma3-270m"}
CUT_BYTES = 10_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="titer-bench-") as scratch:
        files = {name: models.cache_folder() / "models" / folder / "tokenizer.json" for name, folder in CACHED.items()}
        files = {name: file for name, file in files.items() if file.is_file()}
        loads = dict(files)
        if "Gemma 3" in files:
            loads["Gemma 3, cut to 10 MB"] = cut(files["Gemma 3"], Path(scratch) / "cut.json")
        for make in TRAINED:
            files[f"{make.__name__}, {make().get_vocab_size()} tokens"] = save(make(), Path(scratch))
        report: dict[str, Any] = {
            "machine": machine(),
            "versions": {"tokenizers": tokenizers.__version__},
            "command": command(),
            "load": [{"tokenizer": name, **compare_loads(file, arguments.repeats)} for name, file in loads.items()],
            "encode": [
                {"tokenizer": name, **compare_encoding(file, arguments.repeats)} for name, file in files.items()
            ],
        }
    write(arguments.out, "tokenizer_speed", report, table(report))


def compare_loads(file: Path, repeats: int) -> dict[str, Any]:
    times = take_turns(
        lambda _: tokenizers.Tokenizer.from_file(str(file)), lambda _: titer.Tokenizer.from_file(str(file)), repeats
    )
    return {"megabytes": file.stat().st_size / 1e6, **times}


def compare_encoding(file: Path, repeats: int) -> dict[str, Any]:
    theirs, ours = cases.load_both(file)
    rng = random.Random(0)
    notes = [" ".join(sentence(rng) for _ in range(700)) for _ in range(repeats + 1)]
    strings = [[sentence(rng) for _ in range(1000)] for _ in range(repeats + 1)]

    def their_batch(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in theirs.encode_batch_fast(texts)]

    for note, batch in zip(notes, strings, strict=True):
        if ours.encode(note) != their_batch([note])[0] or ours.encode_batch(batch) != their_batch(batch):
            raise SystemExit(f"ids differ: {file}")
    return {
        "note": take_turns(lambda i: their_batch([notes[i]]), lambda i: ours.encode(notes[i]), repeats),
        "strings": take_turns(lambda i: their_batch(strings[i]), lambda i: ours.encode_batch(strings[i]), repeats),
        "note_characters": statistics.mean(map(len, notes)),
        "string_characters": statistics.mean(len(text) for batch in strings for text in batch),
    }


def take_turns(theirs: Callable[[int], object], ours: Callable[[int], object], repeats: int) -> dict[str, Any]:
    """Seconds of both in every repeat, after one that does not count, and the ratios."""
    seconds: dict[str, list[float]] = {"tokenizers": [], "titer": []}
    for i in range(repeats + 1):
        for name, call in (("tokenizers", theirs), ("titer", ours)):
            start = time.perf_counter()
            call(i)
            if i > 0:
                seconds[name].append(time.perf_counter() - start)
    ratios = [their / our for their, our in zip(seconds["tokenizers"], seconds["titer"], strict=True)]
    return {**seconds, "ratio": [statistics.median(ratios), min(ratios), max(ratios)]}


_PARTS = {
    "who": """The patient|A 67-year-old man|She|He|The daughter|Dr. Oruma|A nurse|The family""",
    "verb": """reports|denies|was given|tolerated|doesn't take|describes|had stopped|should continue""",
    "what": """mild dyspnoea|chest pain|naproxen|salvorin|warm tea|bilateral oedema|HbA1c of 8.2 %|a systolic murmur
|intermittent claudication|Größe 172 cm|no fever|β-blockers|paraesthesia of the left hand|tramelotide""",
    "when": """since Monday|on admission|at 06:30|for three weeks|twice daily|before meals|after the second dose
|in 2019 and again in 2023|as needed (PRN)|\n\nPlan:\n -""",
}


def sentence(rng: random.Random) -> str:
    parts = [rng.choice(options.split("|")) for options in _PARTS.values()]
    syllables = "".join(rng.choices(["ra", "mel", "to", "vin", "so", "pra", "zol", "ine", "dex"], k=rng.randint(2, 4)))
    dose = f"{rng.randint(1, 900) / 4:g} mg of {syllables}"
    vitals = f"BP {rng.randint(90, 180)}/{rng.randint(50, 100)} mmHg"
    return f"{parts[0]} {parts[1]} {parts[2]} {parts[3]}, {rng.choice([dose, vitals])}."


def cut(file: Path, target: Path) -> Path:
    """Write the tokenizer without its last tokens, so that the file has the size that large models' files have."""
    document = json.loads(file.read_text(encoding="utf-8"))
    vocab, merges = document["model"]["vocab"], document["model"]["merges"]
    added = document["added_tokens"]
    low, high, text = 0, len(vocab), ""
    while high - low > len(vocab) // 1000:
        size = (low + high) // 2
        tokens = [token for token, i in vocab.items() if i < size or len(token) == 1]  # merges start from characters
        kept = {token: i for i, token in enumerate(tokens)}
        document["model"]["vocab"] = kept
        document["model"]["merges"] = [pair for pair in merges if {*pair, "".join(pair)} <= kept.keys()]
        document["added_tokens"] = [
            {**token, "id": kept[token["content"]]} for token in added if token["content"] in kept
        ]
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        low, high = (low, size) if len(text.encode()) > CUT_BYTES else (size, high)
    target.write_text(text, encoding="utf-8")
    return target


def save(tokenizer: tokenizers.Tokenizer, folder: Path) -> Path:
    file = folder / f"{len(list(folder.iterdir()))}.json"
    tokenizer.save(str(file))
    return file


def table(report: dict[str, Any]) -> str:
    def cell(times: dict[str, Any], unit: float) -> str:
        middle, low, high = times["ratio"]
        their, our = (statistics.median(times[name]) * unit for name in ("tokenizers", "titer"))
        return f"{their:.3g} / {our:.3g} | {middle:.2f} ({low:.2f}-{high:.2f})"

    lines = ["| loading | MB | tokenizers / titer, s | ratio |", "|---|---|---|---|"]
    lines += [f"| {row['tokenizer']} | {row['megabytes']:.1f} | {cell(row, 1)} |" for row in report["load"]]
    lines += [
        "",
        "| encoding | note: tokenizers / titer, ms | ratio | 1,000 strings: tokenizers / titer, ms | ratio |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['tokenizer']} | {cell(row['note'], 1e3)} | {cell(row['strings'], 1e3)} |" for row in report["encode"]
    ]
    return "\n".join([*lines, "", machine_line(report), ""])


if __name__ == "__main__":
    main()
