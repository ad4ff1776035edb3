"""Attacks a small chat model on this machine with GCG: `./dev demo`, or `python examples/demo.py`.

The target is harmless and nothing that the model says by itself: the point is to watch what it takes to change that.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import titer
from titer.display import SearchProgress, summary

PROMPT = "Tell me about the planet Saturn. {slot}"
TARGET = "Saturn is my favorite"
SLOT = "x x x x x x x x x x x x"


def main() -> None:
    parser = argparse.ArgumentParser(description="Attack SmolLM2-135M-Instruct with GCG.")
    parser.add_argument("--out", type=Path, default=Path("build/demo/result.json"), help="where the result goes")
    parser.add_argument("--seconds", type=float, default=150.0, help="stop searching after this time")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    cpu = torch.cpu.get_capabilities()
    bfloat16_is_fast = cpu.get("amx_bf16") or cpu.get("avx512_bf16") or cpu.get("bf16")
    model = titer.load_model(titer.models.get("smollm2"), dtype="bfloat16" if bfloat16_is_fast else "float32")
    prompt = titer.Prompt.from_chat(model, PROMPT, TARGET, initial=SLOT)
    attack = titer.attacks.GCG(num_steps=70, search_width=64, topk=128, early_stop=True, seed=arguments.seed)
    print(f"{model}\n{attack}\n\nprompt    {PROMPT}\ntarget    {TARGET}\n", flush=True)

    started = time.monotonic()
    with SearchProgress(attack.options["num_steps"]) as bar:

        def progress(step: titer.attacks.AttackStep) -> bool:
            bar(step)
            return time.monotonic() - started < arguments.seconds

        result = attack.run(titer.System(model), prompt, progress=progress)

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result.save(arguments.out)
    print(f"\n{summary(result)}\nresult    {arguments.out}")
    if not result.success:
        print("\nThe search ended before the model said the target. Try --seed 1, or more --seconds.")


if __name__ == "__main__":
    main()
