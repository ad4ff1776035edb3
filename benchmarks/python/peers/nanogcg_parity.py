"""Applies nanoGCG's own functions to fixed inputs: `nanogcg_parity.py request.json IN.safetensors OUT.safetensors`.

Started by `nanogcg_peer.run_parity`, which documents the tensors, with nanoGCG's folder first on PYTHONPATH.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nanogcg.gcg
import torch
from nanogcg_loading import load
from safetensors.torch import load_file, save_file


class EnumeratedDraws:
    """Stands in for torch inside nanoGCG's sampler: row r draws position r // topk and rank r % topk."""

    def __init__(self, num_positions: int, topk: int) -> None:
        self._rows = torch.arange(num_positions * topk)
        self._topk = topk

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def rand(self, shape: tuple[int, int], device: torch.device) -> torch.Tensor:
        # The sampler sorts each row and takes the position of the smallest number.
        return torch.ones(shape).scatter_(1, (self._rows // self._topk)[:, None], 0.0).to(device)

    def randint(self, low: int, high: int, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
        return (self._rows % self._topk).view(shape).to(device)


def topk_ids(slot_ids: torch.Tensor, gradient: torch.Tensor, topk: int, banned: torch.Tensor | None) -> torch.Tensor:
    """Return the ids [S, topk] that nanoGCG's sampler draws from, best first."""
    positions = len(slot_ids)
    nanogcg.gcg.torch = EnumeratedDraws(positions, topk)
    try:
        rows = nanogcg.gcg.sample_ids_from_grad(
            slot_ids, gradient.clone(), positions * topk, topk, n_replace=1, not_allowed_ids=banned
        )
    finally:
        nanogcg.gcg.torch = torch
    drawn = torch.arange(positions).repeat_interleave(topk)
    chosen: torch.Tensor = rows.gather(1, drawn[:, None]).view(positions, topk)
    return chosen


def survives_filter(candidate: torch.Tensor, tokenizer: Any) -> bool:
    """Say whether nanoGCG's re-tokenisation filter keeps one candidate [S]."""
    try:
        return len(nanogcg.gcg.filter_ids(candidate[None], tokenizer)) == 1
    except RuntimeError:  # raised when no candidate is left
        return False


def main(request_file: str, inputs_file: str, outputs_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    inputs = load_file(inputs_file)
    if request["threads"] is not None:
        torch.set_num_threads(request["threads"])
    model, tokenizer = load(Path(request["folder"]), request["dtype"])
    names = ("topk", "batch_size", "use_mellowmax", "mellowmax_alpha", "use_prefix_cache", "allow_non_ascii")
    attack = nanogcg.gcg.GCG(model, tokenizer, nanogcg.gcg.GCGConfig(**{name: request[name] for name in names}))

    # What GCG.run prepares from text, here from ids.
    embed = attack.embedding_layer
    attack.target_ids = inputs["target_ids"][None]
    attack.before_embeds = embed(inputs["before_ids"][None])
    attack.after_embeds = embed(inputs["after_ids"][None])
    attack.target_embeds = embed(attack.target_ids)
    if request["use_prefix_cache"]:
        with torch.no_grad():
            attack.prefix_cache = model(inputs_embeds=attack.before_embeds, use_cache=True).past_key_values

    candidates, slot_ids = inputs["candidates"], inputs["slot_ids"]
    width = len(candidates)
    parts = [embed(candidates), attack.after_embeds.repeat(width, 1, 1), attack.target_embeds.repeat(width, 1, 1)]
    if not request["use_prefix_cache"]:
        parts.insert(0, attack.before_embeds.repeat(width, 1, 1))
    losses = nanogcg.gcg.find_executable_batch_size(
        attack._compute_candidates_loss_original, request["batch_size"] or width
    )(torch.cat(parts, dim=1))
    gradient = attack.compute_token_gradient(slot_ids[None])[0]

    banned = attack.not_allowed_ids
    save_file(
        {
            "losses": losses.float().contiguous(),
            "token_gradient": gradient.float().contiguous(),
            "topk_ids": topk_ids(slot_ids, inputs.get("gradient", gradient), request["topk"], banned).contiguous(),
            "banned_ids": torch.empty(0, dtype=torch.int64) if banned is None else banned.unique(),
            "survives_filter": torch.tensor([survives_filter(row, tokenizer) for row in candidates]),
        },
        outputs_file,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
