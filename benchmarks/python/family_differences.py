"""Measures how far the logits and losses of every supported family are from those of transformers, in float32.

    .venv/bin/python benchmarks/python/family_differences.py

Random models of every family, with everything that its configurations can ask for, and the real ones in the cache. A
figure is the largest difference over a family's models, relative to the largest logit (at least 1) and in nats.
Written to benchmarks/results/families.json and families.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import titer
from titer import models

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from model_cases import CASES, VOCABULARY, pair, random_slots, tokenizer  # noqa: E402 (needs the path above)
from transformers_oracle import all_logits, score  # noqa: E402

REAL_MODELS = {"smollm2": "smollm2-135m-instruct", "gemma3-270m": "gemma3-270m"}


def main() -> None:
    rows: dict[str, dict[str, float]] = {}
    for case, config in CASES.items():
        row = rows.setdefault(config.get("model_type", "llama"), {"models": 0, "logits": 0.0, "losses": 0.0})
        ids = torch.randint(VOCABULARY, (2, 90), generator=torch.Generator().manual_seed(0))
        row["models"] += 1
        row["logits"] = max(row["logits"], logits_difference(pair(case).model, pair(case).module, ids))
        prompt = titer.Prompt.from_text(
            tokenizer(), "Tell me about {slot} the town:\n", "Sure, here is", initial="x x x x x x"
        )
        slots = random_slots(prompt, 50, 2, seed=0)
        losses = titer.CandidateScorer(pair(case).model, prompt).losses(slots)
        expected, _ = score(pair(case).module, prompt, slots)
        row["losses"] = max(row["losses"], (losses - expected).abs().max().item())
    for name, folder in REAL_MODELS.items():
        path = models.cache_folder() / "models" / folder
        if path.is_dir():
            rows[name] = {"models": 1, "logits": real_difference(path)}
    results = ROOT / "benchmarks" / "results"
    (results / "families.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    table = ["| family | models | logits, relative | losses, nats |", "|---|---|---|---|"]
    for name, row in rows.items():
        losses_text = f"{row['losses']:.1e}" if "losses" in row else ""
        table.append(f"| {name} | {row['models']} | {row['logits']:.1e} | {losses_text} |")
    (results / "families.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table))


def logits_difference(model: titer.Model, module: torch.nn.Module, ids: torch.Tensor) -> float:
    with torch.no_grad():
        expected = all_logits(module, ids)
    return ((model(ids) - expected).abs().max() / max(1.0, expected.abs().max())).item()


def real_difference(folder: Path) -> float:
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model = titer.load_model(folder, dtype="float32")
    text = "The Great Barrier Reef, off the coast of Queensland, is the world's largest coral reef system. " * 4
    return logits_difference(model, module, torch.tensor([model.tokenizer.encode(text)]))


if __name__ == "__main__":
    main()
