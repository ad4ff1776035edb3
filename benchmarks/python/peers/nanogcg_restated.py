"""One step of GCG as nanoGCG 0.3.0 takes it, re-stated in plain PyTorch, for machines where nanoGCG is not installed.

The same work in the same order: the gradient through a one-hot product, logits of every position, top-k sampling, the
re-tokenisation filter on the calling thread, whole candidate sequences behind a cached prefix in one batch, which is
halved where memory runs out, and garbage collection after every batch. `tests/python/test_nanogcg_restated.py` holds
it against nanoGCG itself. Where it differs: the filter calls the `tokenizers` package directly, which is faster than
nanoGCG's way through transformers, and is left out where that package is missing; `filters` says so.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from plain_llama import PlainLlama

_OUT_OF_MEMORY = ("CUDA out of memory.", "DefaultCPUAllocator: can't allocate memory")


@dataclass(frozen=True)
class PromptIds:
    """The four spans of a prompt, `[L]` int64 each."""

    before: Tensor
    slot: Tensor
    after: Tensor
    target: Tensor


class RestatedStep:
    """A prompt opened on a model.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer or None
        None leaves out the filter and the ban on tokens beyond printable ASCII.
    batch_size : int or None
        Candidates per batch; None takes all at once.
    """

    def __init__(
        self,
        model: PlainLlama,
        prompt: PromptIds,
        tokenizer: Any,
        *,
        search_width: int = 512,
        topk: int = 256,
        batch_size: int | None = None,
        special_ids: tuple[int, ...] = (),
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._search_width, self._topk, self._batch_size = search_width, topk, batch_size
        self._target = prompt.target
        self._after = model.embed(prompt.after[None])
        self._target_rows = model.embed(prompt.target[None])
        self._banned = None if tokenizer is None else _banned_ids(tokenizer, special_ids).to(prompt.slot.device)
        with torch.no_grad():
            _, self._prefix = model(model.embed(prompt.before[None]))

    @property
    def filters(self) -> bool:
        """Whether candidates that do not survive re-tokenisation are dropped."""
        return self._tokenizer is not None

    def step(self, slot: Tensor) -> tuple[Tensor, float, int]:
        """The best candidate of one step from `slot` `[S]`, its loss, and how many candidates were scored."""
        gradient = self.token_gradient(slot)
        with torch.no_grad():
            candidates = self.sample(slot, gradient)
            if self._tokenizer is not None:
                candidates = self.retained(candidates)
            losses = self.losses(candidates)
            return candidates[losses.argmin()], float(losses.min()), len(candidates)

    def token_gradient(self, slot: Tensor) -> Tensor:
        """Gradient `[S, V]` of the loss with respect to the one-hot rows of the slot."""
        table = self._model.model.embed_tokens.weight
        one_hot = functional.one_hot(slot[None], num_classes=len(table)).to(table.dtype).requires_grad_()
        rows = torch.cat([one_hot @ table, self._after, self._target_rows], dim=1)
        logits, _ = self._model(rows, self._prefix)
        loss = functional.cross_entropy(self._target_logits(logits)[0], self._target)
        return torch.autograd.grad(loss, one_hot)[0][0]

    def sample(self, slot: Tensor, gradient: Tensor) -> Tensor:
        """Candidates `[search_width, S]` with one token exchanged for one of the `topk` best by gradient."""
        if self._banned is not None:
            gradient = gradient.index_fill(1, self._banned, torch.inf)
        best = gradient.topk(self._topk, dim=1, largest=False).indices
        # A sort of random numbers, not randint: this is what nanoGCG pays for drawing distinct positions.
        positions = torch.rand(self._search_width, len(slot), device=slot.device).argsort()[:, :1]
        ranks = torch.randint(self._topk, (self._search_width, 1), device=slot.device)
        chosen = best[positions[:, 0]].gather(1, ranks)
        return slot.repeat(self._search_width, 1).scatter_(1, positions, chosen)

    def retained(self, candidates: Tensor) -> Tensor:
        """Those candidates whose text is tokenised into the same ids, each text encoded by a call of its own."""
        texts = self._tokenizer.decode_batch(candidates.tolist(), skip_special_tokens=False)
        kept = []
        for row, text in zip(candidates, texts, strict=True):
            again = torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids).to(row.device)
            if torch.equal(row, again):
                kept.append(row)
        if not kept:
            raise RuntimeError("[nanogcg_restated] no candidate survives re-tokenisation")
        return torch.stack(kept)

    def losses(self, candidates: Tensor) -> Tensor:
        """Mean cross-entropy of the target for each candidate `[B, S]`."""
        width = len(candidates)
        with torch.no_grad():
            ends = (part.repeat(width, 1, 1) for part in (self._after, self._target_rows))
            rows = torch.cat([self._model.embed(candidates), *ends], dim=1)
        batch_size = self._batch_size or width
        while True:
            _collect()
            try:
                return self._losses(rows, batch_size)
            except RuntimeError as error:
                if batch_size == 1 or not str(error).startswith(_OUT_OF_MEMORY):
                    raise
                batch_size //= 2

    @torch.no_grad()
    def _losses(self, rows: Tensor, batch_size: int) -> Tensor:
        parts = []
        for batch in rows.split(batch_size):
            prefix = [(k.expand(len(batch), -1, -1, -1), v.expand(len(batch), -1, -1, -1)) for k, v in self._prefix]
            logits, _ = self._model(batch, prefix)
            target = self._target.repeat(len(batch))
            losses = functional.cross_entropy(self._target_logits(logits).flatten(0, 1), target, reduction="none")
            parts.append(losses.view(len(batch), -1).mean(1))
            del logits, losses
            _collect()
        return torch.cat(parts)

    def _target_logits(self, logits: Tensor) -> Tensor:
        """The logits that predict the target: the last row of all predicts what follows it."""
        return logits[:, -len(self._target) - 1 : -1].contiguous()


def _banned_ids(tokenizer: Any, special_ids: tuple[int, ...]) -> Tensor:
    def is_allowed(text: str) -> bool:
        return text.isascii() and text.isprintable()

    size = tokenizer.get_vocab_size()
    texts = tokenizer.decode_batch([[i] for i in range(size)], skip_special_tokens=False)
    return torch.tensor([*(i for i, text in enumerate(texts) if not is_allowed(text)), *special_ids])


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
