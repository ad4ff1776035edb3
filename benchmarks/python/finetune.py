"""Times K LoRA runs at once against transformers and PEFT, which train one run after another, in turn in one process.

    ./dev bench finetune [--runs 16] [--steps 3] [--repeats 3] [--models smollm2 clinic] [--dtypes float32 bfloat16]

Every run takes steps of its own sequences, of which the second half of the tokens is the answer: 8 of 64 tokens for
SmolLM2-135M-Instruct, 16 of 64 for a clinic model of 1.2 M parameters before its training; rank 16 on all linear
layers, AdamW (fused, as the Trainer of transformers chooses). The peer is a plain loop: forward, loss of the answers,
backward, clipping, step.

A figure is the ratio of the times of one step of one run in one repeat; the peer's is that of a few runs. First losses
must be equal. Memory is that of processes of their own beyond the loaded model: of K runs less the parameters,
gradients and optimizer state of all but one, and of one run of the peer. Written to
benchmarks/results/finetune_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

import titer
from report import RESULTS, command, machine, machine_line, write
from resident_memory import peak, resident_after_release
from titer import models, training
from titer.clinic import World
from titer.clinic_models.recipe import SMALL
from titer.clinic_models.untrained import write_untrained

LENGTH, ANSWER, RANK, RATE = 64, 32, 16, 2e-4
BATCH = {"smollm2": 8, "clinic": 16}
PEER_RUNS = 2  # timed of the peer, whose runs cost the same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["clinic", "smollm2"], choices=list(BATCH))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: model_folder(name, Path(scratch)) for name in arguments.models}
        results = [
            compare(name, folders[name], dtype, arguments.runs, arguments.steps, arguments.repeats)
            for name in arguments.models
            for dtype in arguments.dtypes
        ]
    report = {
        "machine": machine(),
        "versions": {"transformers": transformers.__version__, "peft": peft.__version__},
        "command": command(),
        "runs": arguments.runs,
        "results": results,
    }
    write(arguments.out, "finetune_cpu", report, table(report))


def model_folder(name: str, scratch: Path) -> Path:
    if name == "smollm2":
        return models.get(name)
    folder = scratch / name
    folder.mkdir()
    write_untrained(folder, World().vocabulary(), SMALL, seed=0)
    return folder


def sequences(name: str, vocab_size: int, run: int, steps: int) -> torch.Tensor:
    """Token ids [steps * batch, LENGTH] of a run."""
    generator = torch.Generator().manual_seed(run)
    return torch.randint(10, vocab_size, (steps * BATCH[name], LENGTH), generator=generator)


def titer_runs(model: titer.CausalLM, name: str, runs: int, steps: int) -> Callable[[], list[float]]:
    """What trains all runs and returns their first losses."""
    span = [(LENGTH - ANSWER, LENGTH)]
    specs = [
        (
            training.FinetuneOptions(
                lora_rank=RANK, learning_rate=RATE, batch_size=BATCH[name], max_steps=steps, shuffle=False, seed=run
            ),
            training.TrainingData([(ids, span) for ids in sequences(name, model.vocab_size, run, steps).tolist()]),
        )
        for run in range(runs)
    ]

    def train() -> list[float]:
        results = titer._titer.finetune(model, specs)
        return [run.steps[0].loss for run in results.runs]

    return train


def peft_runs(folder: Path, dtype: str, name: str, runs: int, steps: int) -> Callable[[], list[float]]:
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    lora = peft.LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, lora)
    model.train()
    base.config.use_cache = False  # as the Trainer of transformers has it
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def train() -> list[float]:
        first = []
        for run in range(runs):
            ids = sequences(name, base.config.vocab_size, run, steps)
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    if "lora_B" in key:
                        parameter.zero_()
            optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)
            for step in range(steps):
                batch = ids[step * BATCH[name] : (step + 1) * BATCH[name]]
                labels = batch.clone()
                labels[:, : LENGTH - ANSWER] = -100
                loss = model(input_ids=batch, labels=labels).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                if step == 0:
                    first.append(loss.item())
        return first

    return train


def compare(name: str, folder: Path, dtype: str, runs: int, steps: int, repeats: int) -> dict[str, Any]:
    model = loaded(folder, dtype)
    ours = titer_runs(model, name, runs, steps)
    theirs = peft_runs(folder, dtype, name, PEER_RUNS, steps)
    tolerance = 1e-4 if dtype == "float32" else 2e-2
    for our, their in zip(ours(), theirs(), strict=False):
        if abs(our - their) > tolerance * their:
            raise SystemExit(f"first losses differ: {our} and {their} ({name}, {dtype})")
    seconds: dict[str, list[float]] = {"peft": [], "titer": []}
    for _ in range(repeats):
        for key, train, count in (("peft", theirs, PEER_RUNS), ("titer", ours, runs)):
            start = time.perf_counter()
            train()
            seconds[key].append((time.perf_counter() - start) / (count * steps))
    ratios = [their / our for their, our in zip(seconds["peft"], seconds["titer"], strict=True)]
    memory = {which: measure_apart(which, name, folder, dtype, runs) for which in ("peft", "titer")}
    return {
        "model": name,
        "dtype": dtype,
        "seconds_per_run_step": seconds,
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
        "bytes_beyond_model": memory,
    }


def loaded(folder: Path, dtype: str) -> titer.CausalLM:
    return titer._titer.CausalLM(str(folder), dtype=dtype)


def measure_apart(which: str, name: str, folder: Path, dtype: str, runs: int) -> int:
    call = f"import finetune; finetune.measure({which!r}, {name!r}, {str(folder)!r}, {dtype!r}, {runs})"
    process = subprocess.run([sys.executable, "-c", call], check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(process.stdout))


def measure(which: str, name: str, folder: str, dtype: str, runs: int) -> None:
    model = loaded(Path(folder), dtype)
    if which == "titer":
        train = titer_runs(model, name, runs, steps=2)
        # Values, gradients, means and mean squares in float32.
        adapter = sum(a.numel() + b.numel() for a, b in one_adapter(model, name).values())
        others = (runs - 1) * adapter * 4 * 4
    else:
        train, others = peft_runs(Path(folder), dtype, name, runs=1, steps=2), 0
    before = resident_after_release()
    train()
    print(json.dumps(peak() - before - others))


def one_adapter(model: titer.CausalLM, name: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    ids = sequences(name, model.vocab_size, 0, 1).tolist()
    data = training.TrainingData([(ids[0][:4], [(2, 4)])])
    options = training.FinetuneOptions(lora_rank=RANK, max_steps=1)
    return titer._titer.finetune(model, [(options, data)]).runs[0].adapter.modules


def table(report: dict[str, Any]) -> str:
    lines = [
        "| model | dtype | PEFT, ms per run-step | titer, ms per run-step | ratio, median (range) "
        "| memory, PEFT: one run | memory, titer |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in report["results"]:
        time_of = {key: 1e3 * statistics.median(values) for key, values in result["seconds_per_run_step"].items()}
        median, low, high = result["ratio"]
        size = {key: value / 1e6 for key, value in result["bytes_beyond_model"].items()}
        lines.append(
            f"| {result['model']} | {result['dtype']} | {time_of['peft']:.0f} | {time_of['titer']:.0f} "
            f"| {median:.2f} ({low:.2f}-{high:.2f}) | {size['peft']:.0f} MB | {size['titer']:.0f} MB |"
        )
    versions = report["versions"]
    return (
        f"{report['runs']} LoRA runs at once, rank {RANK} on all linear layers, against one after another; "
        f"transformers {versions['transformers']}, peft {versions['peft']}; {machine_line(report)}\n\n"
        + "\n".join(lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
