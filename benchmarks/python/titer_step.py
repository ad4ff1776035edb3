"""Runs real GCG steps of titer and times them: `titer_step.py request.json result.json`, as nanogcg_step.py does."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import titer
from resident_memory import peak, resident_after_release


def main(request_file: str, result_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    started = time.perf_counter()
    model = titer.load_model(request["folder"], dtype=request["dtype"], device=request["device"])
    load_seconds = time.perf_counter() - started
    prompt = titer.Prompt.from_chat(
        model, request["message"], request["target"], slot="{optim_str}", initial=request["initial"]
    )
    attack = titer.attacks.GCG(
        num_steps=request["num_steps"], search_width=request["search_width"], seed=request["seed"]
    )
    resident = resident_after_release()
    ends: list[float] = []
    steps: list[dict[str, Any]] = []

    def progress(step: titer.attacks.AttackStep) -> None:
        ends.append(time.perf_counter())
        steps.append({"loss": step.loss, "candidates": step.width, "flops": step.cost.flops})

    result = attack.run(titer.System(model), prompt, progress=progress)
    for i in range(1, len(steps)):  # the first one has no start of its own: opening the session comes before it
        steps[i]["seconds"] = ends[i] - ends[i - 1]
    content = {
        "steps": steps,
        "initial_loss": result.initial_loss,
        "loss": result.loss,
        "final_ids": result.ids,
        "before_ids": prompt.before_ids,
        "after_ids": prompt.after_ids,
        "target_ids": prompt.target_ids,
        "slot_ids": prompt.slot_ids,
        "peak_bytes_beyond_model": peak() - resident,
        "load_seconds": load_seconds,
        "threads": torch.get_num_threads(),
    }
    Path(result_file).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
