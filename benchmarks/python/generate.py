"""Times `titer.generate` against `transformers` on the same prompts, in turn in one process.

    ./dev bench generate [--repeats 5] [--models smollm2 clinic] [--dtypes bfloat16 float32]

Greedy answers of 32 tokens: of SmolLM2-135M-Instruct from the cache (`titer models get smollm2`) to 32 prompts of
different lengths, and of a clinic model of 1.2 M parameters, before its training, to 64 of the clinic's. A figure is
the ratio of both times in one repeat; printed are the median and the range over repeats. In float32 both must give the
same tokens; in bfloat16 the share of equal ones is reported. Written to
benchmarks/results/generate_MODEL_cpu.json and .md.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import titer
from report import RESULTS, command, machine, machine_line, write
from titer import models
from titer.clinic import World, make_records
from titer.clinic.splits import TEST
from titer.clinic_models.recipe import SMALL
from titer.clinic_models.untrained import write_untrained
from tokenizer_speed import sentence

PROMPTS = {"smollm2": 32, "clinic": 64}
NEW_TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=[*PROMPTS], choices=[*PROMPTS])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: model_folder(name, Path(scratch)) for name in arguments.models}
        for name, folder in folders.items():
            report = {
                "machine": machine(),
                "versions": {"transformers": transformers.__version__},
                "command": command(),
                "results": [compare(name, folder, dtype, arguments.repeats) for dtype in arguments.dtypes],
            }
            write(arguments.out, f"generate_{name}_cpu", report, table(report))


def model_folder(name: str, scratch: Path) -> Path:
    if name == "smollm2":
        return models.get(name)
    write_untrained(scratch, World().vocabulary(), SMALL, seed=0)
    return scratch


def compare(name: str, folder: Path, dtype: str, repeats: int) -> dict[str, Any]:
    ours = titer.load_model(folder, dtype=dtype)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    prompts = benchmark_prompts(name, ours)
    padded, mask = left_padded(prompts, pad=theirs.config.eos_token_id)

    def run_theirs() -> list[list[int]]:
        with torch.inference_mode():
            out = theirs.generate(
                padded, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS
            )
        return out[:, padded.shape[1] :].tolist()

    def run_ours() -> list[list[int]]:
        answers = titer.generate(ours, prompts, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)
        return [answer.ids for answer in answers]

    equal = share_of_equal(run_theirs(), run_ours())
    if dtype == "float32" and equal < 1:
        raise SystemExit(f"answers differ: only {equal:.1%} of the tokens are equal")
    seconds: dict[str, list[float]] = {"transformers": [], "titer": []}
    for _ in range(repeats):
        for who, run in (("transformers", run_theirs), ("titer", run_ours)):
            start = time.perf_counter()
            run()
            seconds[who].append(time.perf_counter() - start)
    ratios = [their / our for their, our in zip(seconds["transformers"], seconds["titer"], strict=True)]
    return {
        "model": name,
        "dtype": dtype,
        "prompt_tokens": [len(prompt) for prompt in prompts],
        "equal_tokens": equal,
        "seconds": seconds,
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
    }


def benchmark_prompts(name: str, model: titer.Model) -> list[list[int]]:
    rng = random.Random(0)
    if name == "smollm2":
        texts = [" ".join(sentence(rng) for _ in range(rng.randint(1, 2))) for _ in range(PROMPTS[name])]
    else:
        assert model.chat_template is not None
        records = make_records(World(), TEST, PROMPTS[name])
        texts = model.chat_template.render_all([record["messages"][:-1] for record in records], True)
    return [model.tokenizer.encode(text) for text in texts]


def left_padded(prompts: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def share_of_equal(a: list[list[int]], b: list[list[int]]) -> float:
    pairs = [(x, y) for row_a, row_b in zip(a, b, strict=True) for x, y in zip(row_a, row_b, strict=True)]
    return sum(x == y for x, y in pairs) / len(pairs)


def table(report: dict[str, Any]) -> str:
    lines = [
        "| model | prompts | dtype | transformers, tokens per s | titer, tokens per s | ratio, median (range) "
        "| equal tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in report["results"]:
        prompts = len(result["prompt_tokens"])
        rate = {key: prompts * NEW_TOKENS / statistics.median(result["seconds"][key]) for key in result["seconds"]}
        median, low, high = result["ratio"]
        lines.append(
            f"| {result['model']} | {prompts} | {result['dtype']} | {rate['transformers']:.0f} | {rate['titer']:.0f} "
            f"| {median:.2f} ({low:.2f}-{high:.2f}) | {result['equal_tokens']:.1%} |"
        )
    return (
        f"{NEW_TOKENS} greedy tokens for each prompt, transformers "
        f"{report['versions']['transformers']}; {machine_line(report)}\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
