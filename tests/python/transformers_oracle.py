"""What transformers computes for a prompt: whole sequences, full logits, autograd through an explicit one-hot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

import titer

Objective = dict[str, str | float]

# The keyword arguments of Session.score and Session.token_gradient that a test should try.
OBJECTIVES: list[Objective] = [
    {"loss": "cross_entropy"},
    {"loss": "mellowmax", "mellowmax_alpha": 0.7},
    {"loss": "carlini_wagner", "cw_margin": 0.5},
]


def all_logits(module: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits [B, L, V] of whole sequences [B, L]."""
    return _forward(module, module.get_input_embeddings()(ids))


def score(
    module: PreTrainedModel, prompt: titer.Prompt, candidates: torch.Tensor, **objective: str | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses [B] and whether the target is what the model would say [B], for slots [B, S]."""
    with torch.no_grad():
        logits = _forward(module, _embed(module, prompt, module.get_input_embeddings()(candidates)))
        loss, match = _objective(logits, torch.tensor(prompt.target_ids), **objective)
        return loss.float(), match


def token_gradient(
    module: PreTrainedModel, prompt: titer.Prompt, slot_ids: Sequence[int] | torch.Tensor, **objective: str | float
) -> torch.Tensor:
    """Return the gradient [S, V] of the loss with respect to a one-hot encoding of the slot [S]."""
    embedding = module.get_input_embeddings()
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(slot_ids), len(embedding.weight))
    one_hot = one_hot.to(embedding.weight.dtype).requires_grad_()
    scale = getattr(embedding, "scalar_embed_scale", 1.0)  # Gemma's embedding multiplies what it looks up
    logits = _forward(module, _embed(module, prompt, (one_hot @ embedding.weight * scale)[None]))
    loss, _ = _objective(logits, torch.tensor(prompt.target_ids), **objective)
    return torch.autograd.grad(loss.sum(), one_hot)[0].float()


def forget_growth(module: PreTrainedModel) -> None:
    """Undo what dynamic rope remembers of the longest sequence so far, which titer does not."""
    base = module.base_model
    if hasattr(base, "rotary_emb"):
        base.rotary_emb = type(base.rotary_emb)(module.config)


def _forward(module: PreTrainedModel, embeddings: torch.Tensor) -> torch.Tensor:
    forget_growth(module)
    return module(inputs_embeds=embeddings, use_cache=False).logits


def _embed(module: PreTrainedModel, prompt: titer.Prompt, slots: torch.Tensor) -> torch.Tensor:
    """Place slot embeddings [B, S, d] into the prompt: [B, L, d]."""
    embed = module.get_input_embeddings()

    def rows(ids: Sequence[int]) -> torch.Tensor:
        return embed(torch.tensor(ids, dtype=torch.int64)).expand(len(slots), -1, -1)

    return torch.cat([rows(prompt.before_ids), slots, rows(prompt.after_ids), rows(prompt.target_ids)], dim=1)


def _objective(
    logits: torch.Tensor,
    target: torch.Tensor,
    loss: str = "cross_entropy",
    mellowmax_alpha: float = 1.0,
    cw_margin: float = 1e-3,
) -> tuple[torch.Tensor, torch.Tensor]:
    # In float64, because a float32 sum over a large vocabulary alone errs by 1e-4.
    predicting = logits[:, -len(target) - 1 : -1].double()
    match = (predicting.argmax(-1) == target).all(1)
    index = target.expand(len(logits), -1)[..., None]
    label = predicting.gather(2, index)[..., 0]
    if loss == "cross_entropy":
        return torch.nn.functional.cross_entropy(predicting.mT, index[..., 0], reduction="none").mean(1), match
    if loss == "mellowmax":
        total = torch.logsumexp(-mellowmax_alpha * label, 1)
        return (total - math.log(len(target))) / mellowmax_alpha, match
    others = predicting.scatter(2, index, -torch.inf).amax(2)
    return (others - label).clamp(min=-cw_margin).mean(1), match
