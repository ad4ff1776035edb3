"""Text from a model."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, overload

from titer import _titer
from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer._titer import Generation
from titer.loading import Model

Conversation: TypeAlias = Sequence[Mapping[str, Any]]


@overload
def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str, too: this one comes first
    model: Model,
    prompts: str | Conversation,
    *,
    max_new_tokens: int = ...,
    min_new_tokens: int = ...,
    temperature: float = ...,
    top_k: int = ...,
    top_p: float = ...,
    stop: str | Sequence[str] | None = ...,
    seed: int = ...,
) -> Generation: ...
@overload
def generate(
    model: Model,
    prompts: Sequence[str | Conversation | Sequence[int]],
    *,
    max_new_tokens: int = ...,
    min_new_tokens: int = ...,
    temperature: float = ...,
    top_k: int = ...,
    top_p: float = ...,
    stop: str | Sequence[str] | None = ...,
    seed: int = ...,
) -> list[Generation]: ...
def generate(
    model: Model,
    prompts: str | Conversation | Sequence[str | Conversation | Sequence[int]],
    *,
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop: str | Sequence[str] | None = (),
    seed: int = 0,
) -> Generation | list[Generation]:
    """Continue prompts with a key-value cache, all of them in one batch.

    Parameters
    ----------
    model : Model
        What answers.
    prompts : str, conversation or sequence of prompts
        A user message (rendered with the chat template where the model has one), a conversation (a list of messages
        with `role` and `content`), or several prompts, each of them one of these or token ids that are used as they
        stand.
    max_new_tokens : int
        Most tokens per answer.
    min_new_tokens : int
        That many tokens come before an end-of-sequence token may come, or one that completes a stop string counts.
    temperature : float
        Divides the logits before sampling; 0 takes the most likely token, ties the lowest id, whatever `top_k` and
        `top_p` say.
    top_k : int
        Samples among the `top_k` most likely tokens, and those that are as likely as the last of them; 0 among all.
    top_p : float
        Samples among the fewest of the most likely tokens whose probabilities, after `temperature` and `top_k`, sum up
        to `top_p` (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751), of equally likely ones at the border
        those of lowest id; 1 among all.
    stop : str or sequence of str
        Texts that end an answer, which is cut before the one that is complete first; of several that are complete at
        once, before the longest. They are looked for in the answer's text only, across tokens and inside them; special
        tokens are no part of it.
    seed : int
        Key of the random draws, which do not depend on the batch.

    Returns
    -------
    Generation or list of Generation
        For each prompt the text without special tokens, its token ids, their log-probabilities, and why it ends.

    Raises
    ------
    ValueError
        If a prompt is empty or longer than the model's context, the chat template refuses it, or an option is out of
        range.
    TypeError
        If `stop` holds something else than str, or a prompt is of another kind.

    Examples
    --------
    >>> answer = titer.generate(model, "Hello", max_new_tokens=12, temperature=0.8, top_p=0.95)
    >>> answer.finish_reason, len(answer.ids)
    ('length', 12)
    >>> cut = titer.generate(model, "Hello", temperature=0.8, top_p=0.95, stop=[answer.text[3]])
    >>> cut.finish_reason, answer.text.startswith(cut.text)
    ('stop_string', True)
    """
    alone = isinstance(prompts, str) or _is_conversation(prompts)
    batch = [prompts] if alone else _list(prompts)
    ids = [_encode(model, i, prompt) for i, prompt in enumerate(batch)]
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "stop": [stop] if isinstance(stop, str) else list(stop or ()),
        "seed": seed,
    }
    answers = _titer.generate(model, model.tokenizer, ids, **options)
    return answers[0] if alone else answers


def _is_conversation(prompt: object) -> bool:
    return isinstance(prompt, Sequence) and any(isinstance(part, Mapping) for part in prompt)


def _list(prompts: Any) -> list[Any]:
    if isinstance(prompts, Mapping) or not isinstance(prompts, Iterable):
        raise TypeError(
            f"[generate] expected a text, a conversation or a list of prompts, got {type(prompts).__name__}"
        )
    return list(prompts)


def _encode(model: Model, index: int, prompt: Any) -> list[int]:
    if isinstance(prompt, str) or _is_conversation(prompt):
        if model.chat_template is not None:
            return model.tokenizer.encode(model.chat_template.render_prompt(prompt), add_special_tokens=False)
        if isinstance(prompt, str):
            return model.tokenizer.encode(prompt)
        raise ValueError("[generate] the model has no chat template for a conversation; give it a text")
    try:
        return [operator.index(token) for token in prompt]
    except TypeError:
        raise TypeError(
            f"[generate] prompt {index} must be a text, a conversation or a list of token ids, got {prompt!r:.200}"
        ) from None
