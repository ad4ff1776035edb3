"""Times GCG steps on a device at the shape of a known llama with random weights, against nanoGCG.

    python3 benchmarks/python/device_steps.py --device cuda --shape 135m [--seconds 60]

512 candidates, a slot of 20 and a target of 16 tokens behind 30 others, bfloat16, weights drawn on the device. The peer
is nanoGCG 0.3.0 itself where it is installed, in ~/.cache/titer/peers, and otherwise its step re-stated in plain
PyTorch; the results say which. Both sides use the same weights and token ids and must agree on losses. A figure is the
ratio of median step times within one round, the peer at its better batch size (all candidates, or 64); printed are the
median and the range over rounds. The parts follow: the gradient, and scoring beside its matrix products alone, back to
back. Written to benchmarks/results/gcg_step_<shape>_<device>.json and .md after every part; what time did not allow is
named there.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import itertools
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import titer
from device_clock import Deadline, device_facts, interleaved, spread, synchronize
from invented_tokenizer import SPECIAL_TOKENS, invented_tokenizer, words
from peers.nanogcg_installed import InstalledNanoGcg, is_installed
from peers.nanogcg_restated import PromptIds, RestatedStep
from plain_llama import LlamaConfig, PlainLlama, random_llama
from products import Products, exchanged, products
from report import RESULTS, machine, script_command, write

SHAPES = {
    "small": LlamaConfig(64, 96, 2, 4, 2, 20_480, True),
    "135m": LlamaConfig(576, 1536, 30, 9, 3, 49_152, True),
    "1b": LlamaConfig(2048, 8192, 16, 32, 8, 128_256, True, rope_theta=500_000.0),
    "7b": LlamaConfig(4096, 11_008, 32, 32, 32, 32_000, False),
}
BEFORE, SLOT, AFTER, TARGET = 30, 20, 6, 16  # tokens
PEER_BATCHES = (None, 64)
UNCOUNTED_STEPS = 5  # the gradient's graph is captured in the fourth
LOSS_TOLERANCE = 0.15  # nats, between two bfloat16 passes
GRADIENT_TOLERANCE = 0.2  # relative, likewise; that of another slot differs by more than a half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="135m", choices=SHAPES)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="counted steps of titer per round; the peer takes half")
    parser.add_argument("--search-width", type=int, default=512)
    parser.add_argument("--restated", action="store_true", help="not against nanoGCG itself where that is installed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    deadline = Deadline(arguments.seconds)
    with contextlib.ExitStack() as stack:
        run(Comparison(arguments, deadline, stack), arguments, deadline)


def run(comparison: Comparison, arguments: argparse.Namespace, deadline: Deadline) -> None:
    name = f"gcg_step_{arguments.shape}_{arguments.device}"
    for part in (comparison.check, comparison.rounds, comparison.gradient, comparison.scoring):
        if deadline.left <= 0:
            comparison.report["left_out"].append(part.__name__)
            continue
        try:
            part()
        except Exception as error:  # the other parts are worth their time without it
            traceback.print_exc()
            comparison.report["errors"].append(f"{part.__name__}: {type(error).__name__}: {error}")
        write(arguments.out, name, comparison.report, table(comparison.report), show=False)
    write(arguments.out, name, comparison.report, table(comparison.report))
    sys.exit("\n".join(comparison.report["errors"]) or None)


class Comparison:
    """One model on a device, opened by both sides."""

    def __init__(self, arguments: argparse.Namespace, deadline: Deadline, stack: contextlib.ExitStack) -> None:
        self.arguments, self.deadline, self.device = arguments, deadline, arguments.device
        config = SHAPES[arguments.shape]
        text = invented_tokenizer(config.vocab_size)
        tokenizer = titer.Tokenizer.from_json(text)
        self.module = random_llama(config, device=self.device, dtype=torch.bfloat16)
        self.model = titer.load_model(self.module, tokenizer=tokenizer)
        self.prompt = example_prompt(self.model)
        self.candidates = exchanged(self.prompt.slot_ids, config.vocab_size, arguments.search_width)
        self.peer = restated(self.module, self.prompt, text, arguments.search_width)
        self.installed: InstalledNanoGcg | None = None
        if is_installed() and not arguments.restated:
            self.installed = stack.enter_context(
                InstalledNanoGcg(self.module, text, device=self.device, search_width=arguments.search_width)
            )
        restatement = "nanoGCG 0.3.0's step re-stated in plain PyTorch, " + (
            "with its re-tokenisation filter" if self.peer(None).filters else "without its re-tokenisation filter"
        )
        self.report: dict[str, Any] = {
            "machine": machine() | device_facts(self.device),
            "command": script_command(),
            "shape": arguments.shape,
            "search_width": arguments.search_width,
            "weight_bytes": self.model.weight_bytes,
            "peer": f"nanoGCG 0.3.0; for the parts, {restatement}" if self.installed else restatement,
            "left_out": [],
            "errors": [],
        }

    def check(self) -> None:
        """Both sides give the same candidates the same losses, and two slots in turn the same gradients."""
        session, peer = titer.CandidateScorer(self.model, self.prompt), self.peer(None)
        ours = session.losses(self.candidates[:8])
        theirs = peer.losses(self.candidates[:8].to(self.device)).float().cpu()
        losses = float((ours - theirs).abs().max())
        gradients = 0.0
        for i in range(UNCOUNTED_STEPS + 3):  # eager, captured and replayed ones
            slot = (torch.tensor(self.prompt.slot_ids), self.candidates[0])[i % 2]
            expected = peer.token_gradient(slot.to(self.device)).float().cpu()
            difference = (session.token_gradient(slot) - expected).norm() / expected.norm()
            gradients = max(gradients, float(difference.nan_to_num(torch.inf)))
        self.report |= {"largest_loss_difference": losses, "largest_gradient_difference": gradients}
        if not (losses <= LOSS_TOLERANCE and gradients <= GRADIENT_TOLERANCE):
            raise AssertionError(
                f"titer and the re-stated nanoGCG disagree: losses by {losses} nats, gradients by {gradients} relative"
            )

    def rounds(self) -> None:
        """Whole steps, in turn."""
        self.report["rounds"] = []
        while len(self.report["rounds"]) < self.arguments.rounds:
            if self.report["rounds"] and self.deadline.left < 0.5 * self.arguments.seconds:
                self.report["left_out"].append(f"rounds after {len(self.report['rounds'])}")
                break
            share = self.deadline.left / (3 * (self.arguments.rounds - len(self.report["rounds"])) + 3)
            runs = {"titer": self.titer_steps(Deadline(share))}
            for batch in PEER_BATCHES:
                runs[f"peer_batch_{batch or 'all'}"] = self.peer_steps(batch, Deadline(share))
            median = {name: statistics.median(run["seconds"]) for name, run in runs.items()}
            best = min(value for name, value in median.items() if name != "titer")
            self.report["rounds"].append({"runs": runs, "ratio": best / median["titer"]})

    def titer_steps(self, deadline: Deadline) -> dict[str, Any]:
        ends: list[float] = []
        candidates: list[int] = []

        def progress(step: titer.attacks.AttackStep) -> bool:
            ends.append(time.perf_counter())
            candidates.append(step.width)
            return len(ends) < UNCOUNTED_STEPS + 2 or deadline.left > 0

        attack = titer.attacks.GCG(
            num_steps=UNCOUNTED_STEPS + self.arguments.steps, search_width=self.arguments.search_width, seed=0
        )
        with PeakMemory(self.device) as memory:
            attack.run(titer.System(self.model), self.prompt, progress=progress)
        seconds = [end - start for start, end in itertools.pairwise(ends)]
        return {
            "seconds": seconds[UNCOUNTED_STEPS - 1 :],
            "uncounted_seconds": seconds[: UNCOUNTED_STEPS - 1],
            "candidates": candidates,
            "peak_bytes_beyond_model": memory.bytes,
        }

    def peer_steps(self, batch: int | None, deadline: Deadline) -> dict[str, Any]:
        if self.installed is not None:
            return self._installed_steps(self.installed, batch)
        seconds: list[float] = []
        candidates: list[int] = []
        with PeakMemory(self.device) as memory:
            step = self.peer(batch)
            slot = torch.tensor(self.prompt.slot_ids, device=self.device)
            while len(seconds) < 1 + max(2, self.arguments.steps // 2) and (len(seconds) < 2 or deadline.left > 0):
                synchronize(self.device)
                start = time.perf_counter()
                slot, _, scored = step.step(slot)
                synchronize(self.device)
                seconds.append(time.perf_counter() - start)
                candidates.append(scored)
        return {
            "seconds": seconds[1:],
            "uncounted_seconds": seconds[:1],
            "candidates": candidates,
            "peak_bytes_beyond_model": memory.bytes,
        }

    def _installed_steps(self, peer: InstalledNanoGcg, batch: int | None) -> dict[str, Any]:
        text, target, initial = example_texts()
        steps = 1 + max(2, self.arguments.steps // 2)
        run = peer.steps(text.format(slot="{optim_str}"), target, initial, num_steps=steps, batch_size=batch)
        if run["slot_ids"] != self.prompt.slot_ids or run["before_ids"] != self.prompt.before_ids:
            raise AssertionError("nanoGCG and titer read different token ids")
        seconds = [step["seconds"] for step in run["steps"]]
        return {
            "seconds": seconds[1:],
            "uncounted_seconds": seconds[:1],
            "candidates": [step["candidates"] for step in run["steps"]],
            "peak_bytes_beyond_model": run["peak_bytes_beyond_model"],
        }

    def gradient(self) -> None:
        """The token gradient alone."""
        session, peer = titer.CandidateScorer(self.model, self.prompt), self.peer(None)
        slot = torch.tensor(self.prompt.slot_ids)
        slot_on_device = slot.to(self.device)
        for _ in range(UNCOUNTED_STEPS):
            session.token_gradient(slot)
        self.report["gradient"] = self._in_turn(
            {"titer": lambda _: session.token_gradient(slot), "peer": lambda _: peer.token_gradient(slot_on_device)},
            share=0.3,
        )

    def scoring(self) -> None:
        """Scoring of all candidates, and the products that it cannot do without."""
        session, peer = titer.CandidateScorer(self.model, self.prompt), self.peer(None)
        shapes = products(session, self.candidates)
        multiply = Products(shapes, torch.bfloat16, self.device)
        on_device = self.candidates.to(self.device)
        self.report["scoring"] = {
            "product_flops": sum(2.0 * m * k * n for m, k, n in shapes),
            **self._in_turn(
                {
                    "titer": lambda _: session.losses(self.candidates),
                    "products": lambda _: multiply.run(),
                    "peer": lambda _: peer.losses(on_device),
                },
                share=1.0,
            ),
        }

    def _in_turn(self, methods: dict[str, Callable[[int], Any]], share: float) -> dict[str, Any]:
        seconds, repeats = interleaved(
            methods, 1, self.device, repeats=5, target=0.0, deadline=Deadline(share * self.deadline.left)
        )
        return {"seconds": seconds, "repeats": repeats}


class PeakMemory:
    """The most bytes that torch holds on a GPU inside the block, beyond those held at its start; None on a CPU."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self._device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            self._held = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._device != "cpu":
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._held


def example_texts() -> tuple[str, str, str]:
    """Text with `{slot}` in it, target and initial slot, of invented words that are a token each."""
    every = iter(words(BEFORE + SLOT + AFTER + TARGET))
    before, slot, after, target = (
        "".join(f" {next(every)}" for _ in range(count)) for count in (BEFORE, SLOT, AFTER, TARGET)
    )
    return f"{before}{{slot}}{after}", target, slot


def example_prompt(model: titer.Model) -> titer.Prompt:
    text, target, slot = example_texts()
    prompt = titer.Prompt.from_text(model, text, target, initial=slot)
    lengths = [len(ids) for ids in (prompt.before_ids, prompt.slot_ids, prompt.after_ids, prompt.target_ids)]
    assert lengths == [BEFORE, SLOT, AFTER, TARGET], lengths
    return prompt


def restated(
    module: PlainLlama, prompt: titer.Prompt, tokenizer_json: str, search_width: int
) -> Callable[[int | None], RestatedStep]:
    """Opens the peer with a batch size."""
    tokenizer = None
    if importlib.util.find_spec("tokenizers"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(tokenizer_json)
    device = module.model.embed_tokens.weight.device
    ids = PromptIds(
        *(
            torch.tensor(part, device=device)
            for part in (prompt.before_ids, prompt.slot_ids, prompt.after_ids, prompt.target_ids)
        )
    )
    special = tuple(range(len(SPECIAL_TOKENS)))

    def open_step(batch_size: int | None) -> RestatedStep:
        return RestatedStep(
            module, ids, tokenizer, search_width=search_width, batch_size=batch_size, special_ids=special
        )

    return open_step


def table(report: dict[str, Any]) -> str:
    where = report["machine"]
    lines = [
        f"GCG steps at the {report['shape']} llama shape ({report['weight_bytes'] / 1e9:.2f} GB of random bfloat16 "
        f"weights) on {where['device']}, torch {where['torch']}; `{report['command']}`. Peer: {report['peer']}.",
        "",
        "| what | titer, ms | peer, ms | peer over titer, median (range) |",
        "|---|---|---|---|",
    ]
    rounds = report.get("rounds", [])
    if rounds:
        medians = [{name: statistics.median(run["seconds"]) for name, run in r["runs"].items()} for r in rounds]
        ours, whole, parts = (
            1e3 * statistics.median(m[name] for m in medians) for name in ("titer", "peer_batch_all", "peer_batch_64")
        )
        lines.append(
            f"| whole step | {ours:.1f} | {whole:.1f} (all at once), {parts:.1f} (64) "
            f"| {spread([r['ratio'] for r in rounds])} |"
        )
    for name, title in (("gradient", "token gradient"), ("scoring", f"losses of {report['search_width']} candidates")):
        if name in report:
            seconds = report[name]["seconds"]
            ours, theirs = (1e3 * statistics.median(seconds[side]) for side in ("titer", "peer"))
            ratios = [b / a for a, b in zip(seconds["titer"], seconds["peer"], strict=True)]
            lines.append(f"| {title} | {ours:.1f} | {theirs:.1f} | {spread(ratios)} |")
    if "scoring" in report:
        scoring = report["scoring"]
        seconds = scoring["seconds"]
        ratios = [a / b for a, b in zip(seconds["titer"], seconds["products"], strict=True)]
        rate = scoring["product_flops"] / statistics.median(seconds["products"]) / 1e12
        lines += ["", f"Scoring takes {spread(ratios)} times as long as its products alone ({rate:.3g} TFLOP/s)."]
    if rounds and rounds[0]["runs"]["titer"]["peak_bytes_beyond_model"] is not None:
        peak = {
            name: max(r["runs"][name]["peak_bytes_beyond_model"] for r in rounds) / 1e6 for name in rounds[0]["runs"]
        }
        lines += [
            "",
            f"Memory beyond the model, MB: titer {peak['titer']:.0f}, peer {peak['peer_batch_all']:.0f} (all at once), "
            f"{peak['peer_batch_64']:.0f} (64).",
        ]
    lines += ["", *(f"FAILED: {error.splitlines()[0]}" for error in report["errors"])] if report["errors"] else []
    if report["left_out"]:
        lines += ["", f"Left out for want of time: {', '.join(report['left_out'])}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
