"""The interface of nanoGCG 0.3.0 on titer: replace ``import nanogcg`` by ``from titer.compat import nanogcg``.

Names, defaults and objects are nanoGCG's; the search is :class:`titer.attacks.GCG`. The same seed gives another run
than nanoGCG's, because random numbers are drawn differently, and results also differ where nanoGCG departs from what
the attacked model really reads:

- The prompt is tokenised as a whole. nanoGCG tokenises the text before the slot, the slot, and the text after it one by
  one, and checks candidates in isolation; in the prompt their ends can merge with their neighbours into other tokens.
- Added tokens (the markers of chat turns among them) and embedding rows without a token never enter the slot. nanoGCG
  bans bos, eos, pad and unk, and nothing at all with `allow_non_ascii`.
- Every step scores `search_width` distinct candidates that survive re-tokenisation. nanoGCG draws that many, repeats
  included, and scores the survivors.
- `early_stop` ends the run with the candidate that matches the target, after its text was decoded from the rendered
  prompt. nanoGCG stops when any candidate matches but keeps the one with the lowest loss, which may be another.
- ``strings[i]`` is the text whose loss is ``losses[i]``. With a buffer, nanoGCG gives the best text of the buffer.
- `best_string` can be the initial text, if no step improved on it.
- A chat template's own first token is kept as rendered; nanoGCG drops every copy of it.
- Mellowmax and mean losses are accumulated in float32, whatever the model's dtype.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from titer import Prompt, System
from titer.attacks import GCG
from titer.loading import Model, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from titer._titer import AttackResult, AttackStep

__all__ = ["GCGConfig", "GCGResult", "ProbeSamplingConfig", "run"]

_SLOT = "{optim_str}"
_logger = logging.getLogger("titer.compat.nanogcg")


@dataclass
class ProbeSamplingConfig:
    """Probe sampling (arXiv 2403.01251), which :func:`run` does not offer."""

    draft_model: PreTrainedModel
    draft_tokenizer: PreTrainedTokenizerBase
    r: int = 8
    sampling_factor: int = 16


@dataclass
class GCGConfig:
    """nanoGCG's settings with its defaults.

    `batch_size` and `use_prefix_cache` change nothing about the result: the first caps memory, and the prefix is always
    computed once. :class:`titer.attacks.GCG` documents the others and has more.
    """

    num_steps: int = 250
    optim_str_init: str | list[str] = "x x x x x x x x x x x x x x x x x x x x"
    search_width: int = 512
    batch_size: int | None = None
    topk: int = 256
    n_replace: int = 1
    buffer_size: int = 0
    use_mellowmax: bool = False
    mellowmax_alpha: float = 1.0
    early_stop: bool = False
    use_prefix_cache: bool = True
    allow_non_ascii: bool = False
    filter_ids: bool = True
    add_space_before_target: bool = False
    seed: int | None = None
    verbosity: str = "INFO"
    probe_sampling_config: ProbeSamplingConfig | None = None


@dataclass
class GCGResult:
    """What :func:`run` found.

    Attributes
    ----------
    best_loss : float
        Loss of `best_string`, scored again at the end.
    best_string : str
        Text that replaces ``{optim_str}``; a space that it starts with is part of it.
    losses, strings : list
        Loss and text that each step ended with.
    seed : int
        The seed that was used, which :func:`run` draws where the configuration has none. Not in nanoGCG.
    details : titer.attacks.AttackResult
        Cost, success, the model's answers before and after. Not in nanoGCG.
    """

    best_loss: float
    best_string: str
    losses: list[float]
    strings: list[str]
    seed: int
    details: AttackResult


def run(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: str | Sequence[Mapping[str, Any]],
    target: str,
    config: GCGConfig | None = None,
) -> GCGResult:
    """Search a text that makes a transformers model answer with the target.

    Parameters
    ----------
    model : transformers model
        Its tensors are used in place, on their device and in their dtype.
    tokenizer : transformers tokenizer
        A fast one. Without a chat template, the contents of the messages are joined.
    messages : str or list of dict
        A user message or a conversation. ``{optim_str}`` marks the slot, once; where it is absent it is appended to the
        last message.
    target : str
        What the answer should start with.
    config : GCGConfig, optional
        Settings; nanoGCG's defaults where it is None.

    Returns
    -------
    GCGResult

    Raises
    ------
    NotImplementedError
        If `probe_sampling_config` is set.
    ValueError
        If a setting is out of range, or the slot or the target merges with its neighbours into one token.

    Examples
    --------
    >>> from titer.compat import nanogcg
    >>> config = nanogcg.GCGConfig(num_steps=2, search_width=8, seed=0, verbosity="WARNING")
    >>> result = nanogcg.run(hf_model, hf_tokenizer, "Tell me about Saturn. {optim_str}", "NO WAY", config)
    >>> len(result.losses), result.seed
    (2, 0)
    """
    config = config or GCGConfig()
    if config.probe_sampling_config is not None:
        raise NotImplementedError(
            "[nanogcg] probe_sampling_config is set, and titer has no probe sampling; leave it at None"
        )
    _logger.setLevel(config.verbosity)
    seed = secrets.randbits(31) if config.seed is None else config.seed
    _logger.info("seed %d", seed)
    if config.add_space_before_target:
        target = " " + target
    initial = [config.optim_str_init] if isinstance(config.optim_str_init, str) else list(config.optim_str_init)
    if not initial:
        raise ValueError("[nanogcg] optim_str_init is an empty list; give one text at least")

    opened = load_model(model, tokenizer=tokenizer)
    prompt, initial = _open_prompt(opened, _with_slot(messages), target, initial)
    attack = GCG(
        num_steps=config.num_steps,
        search_width=config.search_width,
        batch_size=config.batch_size,
        topk=config.topk,
        n_replace=config.n_replace,
        buffer_size=config.buffer_size,
        loss="mellowmax" if config.use_mellowmax else "cross_entropy",
        mellowmax_alpha=config.mellowmax_alpha,
        early_stop=config.early_stop,
        allow_non_ascii=config.allow_non_ascii,
        filter_ids=config.filter_ids,
        optim_str_init=initial,
        seed=seed,
    )

    def log_step(step: AttackStep) -> None:
        if _logger.isEnabledFor(logging.INFO):
            text = prompt.slot_text(step.ids)
            _logger.info("step %d/%d  loss %.4f  %r", step.step, config.num_steps, step.loss, text)

    result = attack.run(System(opened), prompt, progress=log_step)
    return GCGResult(
        best_loss=result.loss,
        best_string=result.text,
        losses=[step.loss for step in result.steps],
        strings=[prompt.slot_text(step.ids) for step in result.steps],
        seed=seed,
        details=result,
    )


def _with_slot(messages: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(turn) for turn in messages]
    if not turns:
        raise ValueError("[nanogcg] there are no messages")
    if not any(_SLOT in turn["content"] for turn in turns):
        turns[-1]["content"] += _SLOT
    return turns


def _open_prompt(
    model: Model, turns: list[dict[str, Any]], target: str, initial: list[str]
) -> tuple[Prompt, list[str]]:
    """Return the prompt and the initial texts, which get a space in front where they would merge with the message."""

    def opened(text: str) -> Prompt:
        if model.chat_template is None:
            joined = "".join(turn["content"] for turn in turns)
            return Prompt.from_text(model, joined, target, slot=_SLOT, initial=text)
        return Prompt.from_chat(model, turns, target, slot=_SLOT, initial=text)

    try:
        return opened(initial[0]), initial
    except ValueError:
        spaced = [" " + text for text in initial]
        try:
            return opened(spaced[0]), spaced
        except ValueError:
            pass
        raise
