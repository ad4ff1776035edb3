"""Attacks a small chat model on this machine with GCG: `./dev demo`, or `python examples/demo.py`.

The target is harmless and nothing that the model says by itself: the point is to watch how many trials it takes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import titer
from titer.display import SearchProgress, summary

PROMPT = "Tell me about the planet Saturn. {slot}"
TARGET = "Saturn is a cat"
SLOT = "x x x x x x x x x x x x"


def main() -> None:
    parser = argparse.ArgumentParser(description="Attack SmolLM2-135M-Instruct with GCG.")
    parser.add_argument("--out", type=Path, default=Path("build/demo/result.json"), help="where the result goes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    folder = titer.models.get("smollm2")
    model = titer.load_model(folder, dtype="bfloat16")
    prompt = titer.Prompt.from_chat(model, PROMPT, TARGET, initial=SLOT)
    attack = titer.attacks.GCG(num_steps=60, search_width=64, topk=128, early_stop=True, seed=arguments.seed)

    print(f"{model}\n{attack}\n")
    print(f"user      {PROMPT}\ntarget    {TARGET}\n", flush=True)
    started = time.monotonic()
    with SearchProgress(attack.options["num_steps"]) as progress:
        result = attack.run(titer.System(model), prompt, progress=progress)

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result.save(arguments.out)
    print(f"\n{summary(result)}")
    print(f"{'result':9} {arguments.out}")
    print(f"{'time':9} {time.monotonic() - started:.0f} s")
    if not result.success:
        print("\nThe model did not say the target within the budget. Another --seed may get there.")


if __name__ == "__main__":
    main()
