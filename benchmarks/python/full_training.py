"""Times the training of all weights of a clinic model against transformers, in turn in one process.

    ./dev bench full_training [--steps 5] [--repeats 5] [--dtypes float32 bfloat16]

64 of the clinic's training records a step, whose answers are learned, on a model of 1.2 M parameters; AdamW (fused, as
the Trainer of transformers chooses), clipping. The peer is a plain loop over batches that are padded to their longest
record; in bfloat16 it runs under autocast, as the Trainer does, with weights in float32, as titer keeps them. First
losses must be equal. A figure is the ratio of tokens per second, padding not counted, in one repeat. Written to
benchmarks/results/full_training_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import titer
from report import RESULTS, command, machine, machine_line, write
from titer import training
from titer.clinic import World, make_records
from titer.clinic.splits import TRAIN
from titer.clinic_models.recipe import SMALL
from titer.clinic_models.untrained import write_untrained

BATCH, RATE = 64, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    world = World()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_untrained(folder, world.vocabulary(), SMALL, seed=0)
        records = [*make_records(world, TRAIN, arguments.steps * BATCH)]
        results = [compare(folder, records, dtype, arguments.repeats) for dtype in arguments.dtypes]
    report = {
        "machine": machine(),
        "versions": {"transformers": transformers.__version__},
        "command": command(),
        "steps": arguments.steps,
        "results": results,
    }
    write(arguments.out, "full_training_cpu", report, table(report))


def compare(folder: Path, records: list[dict[str, Any]], dtype: str, repeats: int) -> dict[str, Any]:
    model = titer.load_model(folder, dtype=dtype)
    data = training.tokenise(model, records)
    sequences = [data[i] for i in range(len(data))]
    tokens = sum(len(ids) for ids, _ in sequences)
    trainers = {"transformers": transformers_trainer(folder, sequences, dtype), "titer": titer_trainer(model, data)}
    losses = {name: train() for name, train in trainers.items()}
    if abs(losses["titer"] - losses["transformers"]) > (1e-4 if dtype == "float32" else 2e-2) * losses["transformers"]:
        raise SystemExit(f"first losses differ: {losses} ({dtype})")
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(repeats):
        for name, train in trainers.items():
            start = time.perf_counter()
            train()
            rates[name].append(tokens / (time.perf_counter() - start))
    ratios = [our / their for our, their in zip(rates["titer"], rates["transformers"], strict=True)]
    return {
        "dtype": dtype,
        "tokens_per_second": rates,
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
    }


def titer_trainer(model: titer.Model, data: training.TrainingData) -> Callable[[], float]:
    """What trains for an epoch and returns the first loss."""
    spec = training.FinetuneSpec(
        data, method="full", learning_rate=RATE, lr_schedule="constant", batch_size=BATCH, shuffle=False
    )
    return lambda: training.finetune(model, [spec], micro_batch_tokens=4096).runs[0].steps[0].loss


def transformers_trainer(folder: Path, sequences: list[Any], dtype: str) -> Callable[[], float]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.train()
    model.config.use_cache = False
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [padded(sequences[first : first + BATCH]) for first in range(0, len(sequences), BATCH)]

    def train() -> float:
        model.load_state_dict(start)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
        first = None
        for batch in batches:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            first = loss.item() if first is None else first
        assert first is not None
        return float(first)

    return train


def padded(sequences: list[tuple[list[int], list[tuple[int, int]]]]) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in sequences)
    ids, mask, labels = (torch.full((len(sequences), longest), fill) for fill in (0, 0, -100))
    for row, (tokens, answers) in enumerate(sequences):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        for begin, end in answers:
            labels[row, begin:end] = ids[row, begin:end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def table(report: dict[str, Any]) -> str:
    lines = [
        "| dtype | transformers, tokens per s | titer, tokens per s | ratio, median (range) |",
        "|---|---|---|---|",
    ]
    for result in report["results"]:
        rate = {name: statistics.median(values) for name, values in result["tokens_per_second"].items()}
        median, low, high = result["ratio"]
        lines.append(
            f"| {result['dtype']} | {rate['transformers']:.0f} | {rate['titer']:.0f} "
            f"| {median:.2f} ({low:.2f}-{high:.2f}) |"
        )
    return (
        f"All weights of a clinic model of 1.2 M parameters, {BATCH} records a step; transformers "
        f"{report['versions']['transformers']}; {machine_line(report)}\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
