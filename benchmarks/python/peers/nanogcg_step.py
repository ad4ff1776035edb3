"""Runs real nanoGCG steps and times their parts: `nanogcg_step.py request.json result.json`.

Started by `nanogcg_peer.run_steps` with nanoGCG's folder first on PYTHONPATH.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nanogcg.gcg
import tokenizers
import torch
import transformers
from nanogcg_loading import load

_GCG_OPTIONS = (
    "num_steps", "optim_str_init", "search_width", "batch_size", "topk", "n_replace", "use_prefix_cache", "filter_ids",
    "seed",
)  # fmt: skip


class StepClock:
    """Wraps nanoGCG's functions to time them. A step starts when its gradient is asked for."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._started: list[float] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # nanoGCG inspects the signature
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            if part == "gradient":
                self._started.append(start)
                self.steps.append({})
            result = function(*arguments, **options)
            if self.steps:  # scoring the initial slot comes before the first step
                step = self.steps[-1]
                step[part] = step.get(part, 0.0) + time.perf_counter() - start
                if part == "scoring":
                    step["candidates"] = len(result)
            return result

        return call

    def stop(self) -> None:
        ends = [*self._started[1:], time.perf_counter()]
        for step, start, end in zip(self.steps, self._started, ends, strict=True):
            step["seconds"] = end - start


def main(request_file: str, result_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    if request["threads"] is not None:
        torch.set_num_threads(request["threads"])
    model, tokenizer = load(Path(request["folder"]), request["dtype"])
    model = model.to(request["device"])
    config = nanogcg.gcg.GCGConfig(**{name: request[name] for name in _GCG_OPTIONS})
    attack = nanogcg.gcg.GCG(model, tokenizer, config)

    clock = StepClock()
    attack.compute_token_gradient = clock.timed("gradient", attack.compute_token_gradient)
    attack._compute_candidates_loss_original = clock.timed("scoring", attack._compute_candidates_loss_original)
    nanogcg.gcg.sample_ids_from_grad = clock.timed("sampling", nanogcg.gcg.sample_ids_from_grad)
    nanogcg.gcg.filter_ids = clock.timed("filter", nanogcg.gcg.filter_ids)

    embedded: list[list[int]] = []  # run() embeds before, after and target, in this order, and then the slot
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: embedded.append(inputs[0][0].tolist()) if len(embedded) < 4 else None
    )
    initial_losses: list[float] = []
    make_buffer = attack.init_buffer

    def init_buffer() -> Any:
        buffer = make_buffer()
        initial_losses.append(float(buffer.get_lowest_loss()))
        return buffer

    attack.init_buffer = init_buffer

    memory = DeviceMemory() if request["device"] != "cpu" else ResidentMemory()
    result = attack.run(request["messages"], request["target"])
    clock.stop()
    grown = memory.grown()
    hook.remove()

    for step, loss in zip(clock.steps, result.losses, strict=True):
        step["loss"] = loss
    before_ids, after_ids, target_ids, slot_ids = embedded
    content = {
        "steps": clock.steps,
        "initial_loss": initial_losses[0],
        "strings": result.strings,
        "peak_bytes_beyond_model": grown,
        "before_ids": before_ids,
        "after_ids": after_ids,
        "target_ids": target_ids,
        "slot_ids": slot_ids,
        "threads": torch.get_num_threads(),
        "versions": {
            "nanogcg": "0.3.0",
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "torch": torch.__version__,
        },
    }
    Path(result_file).write_text(json.dumps(content), encoding="utf-8")


class ResidentMemory:
    """Growth of the peak resident memory, from what is left once freed memory went back to the system."""

    def __init__(self) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM to the present size
        self._before = _memory("VmRSS")

    def grown(self) -> int:
        return _memory("VmHWM") - self._before


class DeviceMemory:
    """Growth of what torch allocates on the GPU."""

    def __init__(self) -> None:
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()

    def grown(self) -> int:
        return torch.cuda.max_memory_allocated() - self._before


def _memory(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"^{key}:\s+(\d+) kB$", status, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"[peers] /proc/self/status has no {key}")
    return int(match[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
