"""Text from a model."""

from __future__ import annotations

from typing import overload

from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer._titer import generate_ids
from titer.loading import Model


@overload
def generate(
    model: Model, prompts: str, *, max_new_tokens: int = ..., temperature: float = ..., seed: int = ...
) -> str: ...
@overload
def generate(
    model: Model,
    prompts: list[str] | list[list[int]],
    *,
    max_new_tokens: int = ...,
    temperature: float = ...,
    seed: int = ...,
) -> list[str]: ...
def generate(
    model: Model,
    prompts: str | list[str] | list[list[int]],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> str | list[str]:
    """Continue prompts with a key-value cache, all of them in one batch.

    Parameters
    ----------
    model : Model
        What answers.
    prompts : str, list of str or list of list of int
        A user message, user messages (rendered with the chat template where the model has one), or token ids that are
        used as they stand.
    max_new_tokens : int
        Most tokens per answer.
    temperature : float
        Divides the logits before sampling; 0 takes the most likely token, ties the lowest id.
    seed : int
        Key of the random draws, which do not depend on the batch.

    Returns
    -------
    str or list of str
        Answers, without special tokens.

    Raises
    ------
    ValueError
        If a prompt is empty or does not leave room for the answer, or an option is out of range.

    Examples
    --------
    >>> isinstance(titer.generate(model, "Hello", max_new_tokens=4), str)
    True
    """
    batch: list[str] | list[list[int]] = [prompts] if isinstance(prompts, str) else prompts
    ids = [_encode(model, prompt) if isinstance(prompt, str) else prompt for prompt in batch]
    answers = generate_ids(model, ids, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    texts = [model.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
    return texts[0] if isinstance(prompts, str) else texts


def _encode(model: Model, message: str) -> list[int]:
    if model.chat_template is None:
        return model.tokenizer.encode(message)
    text = model.chat_template.render_prompt(message)
    return model.tokenizer.encode(text, add_special_tokens=False)
