"""Times every operation on a device beside torch's own and beside what the device can reach at all.

    python3 benchmarks/python/device_ops.py --device cuda [--seconds 50] [--small]

Shapes are those of llamas of 135 M, 1 B and 7 B parameters in bfloat16. Inputs rotate through at least four times the
last-level cache. Element-wise operations stand beside a copy of as many bytes, the others beside a matrix product, all
in the same run and in turn; a figure is the median over repeats with its range. What is timed is compared with torch's
result first. `--small` is a dry run on tiny shapes. Needs the built library, not the Python package. Written to
benchmarks/results/operations_<device>.json and .md after every case.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from device_clock import Deadline, device_facts, interleaved, rotations, spread
from report import RESULTS, machine, script_command, write

DTYPE = torch.bfloat16
LARGEST_DIFFERENCE = 0.02  # relative, in the Euclidean norm, between two bfloat16 results

# hidden size, intermediate size, heads, key heads, head dimension, vocabulary
LLAMAS = {
    "135m": (576, 1536, 9, 3, 64, 49152),
    "1b": (2048, 8192, 32, 8, 64, 128256),
    "7b": (4096, 11008, 32, 32, 128, 32000),
}
SMALL_LLAMAS = {"small": (64, 96, 4, 2, 16, 200)}


@dataclass(frozen=True)
class Case:
    """One operation on one shape; every method takes the index of an input set and returns its result."""

    op: str
    shape: str
    bytes_per_set: int
    work: float  # bytes moved or floating-point operations of one call
    unit: str  # B or FLOP
    make: Callable[[int], dict[str, Callable[[int], Tensor]]]  # from the number of input sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--library", type=Path, default=None, help="libtiter.so, where the package is not built")
    parser.add_argument("--seconds", type=float, default=50.0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    deadline = Deadline(arguments.seconds)
    if arguments.library is not None:
        torch.ops.load_library(arguments.library)
    facts = device_facts(arguments.device)
    report: dict[str, Any] = {"machine": machine() | facts, "command": script_command(), "results": []}
    cases = list(all_cases(arguments.device, arguments.small))
    for index, case in enumerate(cases):
        if deadline.left <= 0:
            report["left_out"] = [f"{c.op} {c.shape}" for c in cases[index:]]
            break
        share = Deadline(deadline.left / (len(cases) - index))
        report["results"].append(measure(case, arguments, facts["cache_bytes"], share))
        write(arguments.out, f"operations_{arguments.device}", report, table(report), show=False)
    write(arguments.out, f"operations_{arguments.device}", report, table(report))


def measure(case: Case, arguments: argparse.Namespace, cache_bytes: int, deadline: Deadline) -> dict[str, Any]:
    sets = rotations(case.bytes_per_set, cache_bytes)
    result: dict[str, Any] = {"op": case.op, "shape": case.shape, "work": case.work, "unit": case.unit, "sets": sets}
    try:
        methods = case.make(sets)
        result["difference"] = difference(methods["titer"](0), methods["torch"](0))
        result["seconds"], result["repeats"] = interleaved(
            methods,
            sets,
            arguments.device,
            repeats=arguments.repeats,
            target=0 if arguments.small else 0.02,
            deadline=deadline,
        )
    except Exception as error:  # one failing operation must not hide the others
        result["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return result


def difference(actual: Tensor, expected: Tensor) -> float:
    wide = expected.double()
    return float((actual.double() - wide).norm() / wide.norm().clamp_min(1e-300))


def all_cases(device: str, small: bool) -> Iterator[Case]:
    elements = 2**12 if small else 2**26
    for name, (d, f, heads, kv_heads, head_dim, vocab) in (SMALL_LLAMAS if small else LLAMAS).items():
        yield rms_norm(name, elements // d, d, device)
        yield gated_activation(name, elements // f, f, device)
        yield rope(name, elements // (heads * head_dim), heads, head_dim, device)
        for rows in (16, 32 if small else 8192):  # a gradient's target, and 512 candidates with a target of 16
            yield linear_cross_entropy(name, rows, d, vocab, device)
        yield linear_cross_entropy(name, 16, d, vocab, device, gradient=True)
        yield shared_prefix_attention(name, 4 if small else 32, kv_heads, heads // kv_heads, head_dim, device)
        yield token_gradient_topk(name, d, vocab, device)
        yield batched_lora(name, 16 if small else 512, d, f, device)


def random(*shape: int, device: str, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, dtype=DTYPE, device=device) * scale


def elementwise(op: str, shape: str, inputs: int, numel: int, make: Callable[[int], Any]) -> Case:
    """`inputs` tensors are read and one is written. A copy moves as many bytes from one tensor to another."""
    moved = (inputs + 1) * numel * DTYPE.itemsize
    return Case(op, shape, moved, moved, "B", make)


def copies(device: str, sets: int, moved: int) -> Callable[[int], Tensor]:
    pairs = [[torch.empty(moved // 2, dtype=torch.uint8, device=device) for _ in range(2)] for _ in range(sets)]
    for source, _ in pairs:
        source.random_()
    return lambda i: pairs[i][1].copy_(pairs[i][0])


def rms_norm(name: str, rows: int, d: int, device: str) -> Case:
    def make(sets: int) -> dict[str, Callable[[int], Tensor]]:
        x = [random(rows, d, device=device) for _ in range(sets)]
        out = [torch.empty_like(t) for t in x]
        weight = random(d, device=device)
        titer = torch.ops.titer.rms_norm.out
        return {
            "titer": lambda i: titer(x[i], weight, 1e-5, "rounded", out=out[i]),
            "torch": lambda i: functional.rms_norm(x[i], (d,), weight, 1e-5),
            "ceiling": copies(device, sets, 2 * x[0].nbytes),
        }

    return elementwise("rms_norm", f"{name} [{rows}, {d}]", 1, rows * d, make)


def gated_activation(name: str, rows: int, width: int, device: str) -> Case:
    def make(sets: int) -> dict[str, Callable[[int], Tensor]]:
        gate, up = ([random(rows, width, device=device) for _ in range(sets)] for _ in range(2))
        out = [torch.empty_like(t) for t in gate]
        titer = torch.ops.titer.gated_activation.out
        return {
            "titer": lambda i: titer(gate[i], up[i], "silu", out=out[i]),
            "torch": lambda i: functional.silu(gate[i]) * up[i],
            "ceiling": copies(device, sets, 3 * gate[0].nbytes),
        }

    return elementwise("gated_activation", f"{name} [{rows}, {width}]", 2, rows * width, make)


def rope(name: str, rows: int, heads: int, head_dim: int, device: str) -> Case:
    def make(sets: int) -> dict[str, Callable[[int], Tensor]]:
        x = [random(rows, heads, head_dim, device=device) for _ in range(sets)]
        out = [torch.empty_like(t) for t in x]
        angles = torch.rand(rows, head_dim // 2, device=device) * 6.28
        cos, sin = angles.cos().to(DTYPE), angles.sin().to(DTYPE)
        whole_cos, whole_sin = (torch.cat([t, t], dim=-1)[:, None] for t in (cos, sin))

        def composed(i: int) -> Tensor:
            first, second = x[i].chunk(2, dim=-1)
            return x[i] * whole_cos + torch.cat([-second, first], dim=-1) * whole_sin

        titer = torch.ops.titer.rope.out
        return {
            "titer": lambda i: titer(x[i], cos, sin, out=out[i]),
            "torch": composed,
            "ceiling": copies(device, sets, 2 * x[0].nbytes),
        }

    return elementwise("rope", f"{name} [{rows}, {heads}, {head_dim}]", 1, rows * heads * head_dim, make)


def linear_cross_entropy(name: str, rows: int, d: int, vocab: int, device: str, gradient: bool = False) -> Case:
    def make(sets: int) -> dict[str, Callable[[int], Tensor]]:
        hidden = [random(rows, d, device=device).requires_grad_(gradient) for _ in range(sets)]
        weight = [random(vocab, d, device=device, scale=d**-0.5) for _ in range(sets)]
        target = torch.randint(vocab, (rows,), device=device)

        def finish(losses: Tensor, i: int) -> Tensor:
            return torch.autograd.grad(losses.sum(), hidden[i])[0] if gradient else losses

        def product(i: int) -> Tensor:
            logits = torch.mm(hidden[i].detach(), weight[i].t())
            return torch.mm(logits, weight[i]) if gradient else logits

        return {
            "titer": lambda i: finish(torch.ops.titer.linear_cross_entropy(hidden[i], weight[i], target)[0], i),
            "torch": lambda i: finish(
                functional.cross_entropy(functional.linear(hidden[i], weight[i]), target, reduction="none"), i
            ),
            "ceiling": product,
        }

    work = (4.0 if gradient else 2.0) * rows * d * vocab
    held = (rows + vocab) * d * DTYPE.itemsize
    op = "linear_cross_entropy" + (" and gradient" if gradient else "")
    return Case(op, f"{name} [{rows}, {d}] x [{vocab}, {d}]", held, work, "FLOP", make)


def shared_prefix_attention(name: str, count: int, kv_heads: int, group: int, head_dim: int, device: str) -> Case:
    """`count` candidates of 32 rows that see 40 of 50 shared positions; torch gets keys and values side by side."""
    own, visible, prefix = 32, 40, 50
    shape = (count * own, kv_heads, group, head_dim)

    def make(sets: int) -> dict[str, Callable[[int], Tensor]]:
        q = [random(*shape, device=device) for _ in range(sets)]
        k, v = ([random(count * own, kv_heads, head_dim, device=device) for _ in range(sets)] for _ in range(2))
        prefix_k, prefix_v = (random(kv_heads, prefix, head_dim, device=device) for _ in range(2))
        out = [torch.empty_like(t) for t in q]
        lengths = [torch.full((count,), n) for n in (own, visible)]
        scale = head_dim**-0.5
        hidden = torch.ones(own, visible + own, dtype=torch.bool, device=device).triu(visible + 1)
        mask = torch.zeros(hidden.shape, dtype=DTYPE, device=device).masked_fill(hidden, -torch.inf)

        def side_by_side(shared: Tensor, rows: Tensor) -> Tensor:
            seen = shared[:, :visible].expand(count, -1, -1, -1)
            every = torch.cat([seen, rows.unflatten(0, (count, own)).transpose(1, 2)], dim=2)
            return every.repeat_interleave(group, dim=1) if group > 1 else every

        def fused(i: int) -> Tensor:
            queries = q[i].view(count, own, kv_heads * group, head_dim).transpose(1, 2)
            keys, values = side_by_side(prefix_k, k[i]), side_by_side(prefix_v, v[i])
            result = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
            return result.transpose(1, 2).reshape(shape)

        titer = torch.ops.titer.shared_prefix_attention.out
        return {
            "titer": lambda i: titer(
                q[i], k[i], v[i], prefix_k, prefix_v, *lengths, None, None, scale, None, out=out[i]
            ),
            "torch": fused,
        }

    work = 4.0 * count * own * (visible + own) * kv_heads * group * head_dim
    held = count * own * kv_heads * head_dim * (2 * group + 2) * DTYPE.itemsize
    return Case(
        "shared_prefix_attention", f"{name} {count} x [{own}, {kv_heads * group}, {head_dim}]", held, work, "FLOP", make
    )


def token_gradient_topk(name: str, d: int, vocab: int, device: str) -> Case:
    """The 256 best tokens of 20 positions; torch forms all scores."""
    positions, k = 20, min(256, vocab // 4)

    def make(sets: int) -> dict[str, Callable[[int], Tensor]]:
        gradient = random(positions, d, device=device)
        embedding = [random(vocab, d, device=device) for _ in range(sets)]
        allowed = torch.rand(vocab, device=device) < 0.7

        def composed(i: int) -> Tensor:
            scores = torch.mm(gradient, embedding[i].t()).float().masked_fill_(~allowed, torch.inf)
            return scores.topk(k, largest=False).values

        return {
            "titer": lambda i: torch.ops.titer.token_gradient_topk(gradient, embedding[i], allowed, k)[1],
            "torch": composed,
            "ceiling": lambda i: torch.mm(gradient, embedding[i].t()),
        }

    work = 2.0 * positions * d * vocab
    return Case("token_gradient_topk", f"{name} [{vocab}, {d}]", vocab * d * DTYPE.itemsize, work, "FLOP", make)


def batched_lora(name: str, rows: int, d: int, width: int, device: str) -> Case:
    """Rank 16 adapters of 8 runs with `rows` rows each; torch batches the runs in products of float32."""
    runs, rank = 8, 16

    def make(sets: int) -> dict[str, Callable[[int], Tensor]]:
        x = [random(runs * rows, d, device=device) for _ in range(sets)]
        base = [random(runs * rows, width, device=device) for _ in range(sets)]
        a = torch.randn(runs, rank, d, device=device) * d**-0.5
        b = torch.randn(runs, width, rank, device=device)
        counts, scale = torch.full((runs,), rows), [2.0] * runs

        def composed(i: int) -> Tensor:
            low = torch.bmm(x[i].view(runs, rows, d).float(), a.transpose(1, 2))
            return (base[i].float() + 2.0 * torch.bmm(low, b.transpose(1, 2)).flatten(0, 1)).to(DTYPE)

        return {
            "titer": lambda i: torch.ops.titer.batched_lora(base[i], x[i], a, b, counts, scale),
            "torch": composed,
        }

    work = 2.0 * runs * rows * rank * (d + width)
    held = runs * rows * (d + 2 * width) * DTYPE.itemsize
    return Case("batched_lora", f"{name} {runs} x [{rows}, {d}] to {width}", held, work, "FLOP", make)


def table(report: dict[str, Any]) -> str:
    where = report["machine"]
    lines = [
        f"Operations in bfloat16 on {where['device']}, torch {where['torch']}; `{report['command']}`. The ceiling is a "
        "copy of as many bytes, or the matrix products alone.",
        "",
        "| operation | shape | titer | torch | titer over torch, median (range) | share of the ceiling |",
        "|---|---|---|---|---|---|",
    ]
    for result in report["results"]:
        if "error" in result:
            lines.append(f"| {result['op']} | {result['shape']} | {result['error']} | | | |")
            continue
        seconds = result["seconds"]
        unit, scale = ("GB/s", 1e9) if result["unit"] == "B" else ("TFLOP/s", 1e12)
        rate = {name: result["work"] / statistics.median(values) / scale for name, values in seconds.items()}
        ratios = [theirs / ours for theirs, ours in zip(seconds["torch"], seconds["titer"], strict=True)]
        wrong = "" if result["difference"] <= LARGEST_DIFFERENCE else f"; differs by {result['difference']:.1e}"
        ceiling = f"{100 * rate['titer'] / rate['ceiling']:.0f} %" if "ceiling" in rate else ""
        lines.append(
            f"| {result['op']} | {result['shape']} | {rate['titer']:.4g} {unit}{wrong} | {rate['torch']:.4g} "
            f"| {spread(ratios)} | {ceiling} |"
        )
    if "left_out" in report:
        lines += ["", f"Left out for want of time: {', '.join(report['left_out'])}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
