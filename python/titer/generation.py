"""Text from a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast, overload

from titer import _titer
from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer._titer import Generation
from titer.loading import Model

Conversation: TypeAlias = Sequence[Mapping[str, Any]]


@overload
def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str, too: this one comes first
    model: Model,
    prompts: str,
    *,
    max_new_tokens: int = ...,
    min_new_tokens: int = ...,
    temperature: float = ...,
    top_k: int = ...,
    top_p: float = ...,
    stop: Sequence[str] = ...,
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
    stop: Sequence[str] = ...,
    seed: int = ...,
) -> list[Generation]: ...
def generate(
    model: Model,
    prompts: str | Sequence[str | Conversation | Sequence[int]],
    *,
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Generation | list[Generation]:
    """Continue prompts with a key-value cache, all of them in one batch.

    Parameters
    ----------
    model : Model
        What answers.
    prompts : str or sequence
        A user message, or several prompts, each of them a user message (rendered with the chat template where the model
        has one), a conversation (a list of messages with `role` and `content`), or token ids that are used as they
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
    stop : sequence of str
        Texts that end an answer, which is cut before the one that is complete first; of several that are complete at
        once, before the longest. They are looked for in the answer's text only, across tokens and inside them.
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
        If `stop` holds something else than str.

    Examples
    --------
    >>> answer = titer.generate(model, "Hello", max_new_tokens=12, temperature=0.8, top_p=0.95)
    >>> answer.finish_reason, len(answer.ids)
    ('length', 12)
    >>> cut = titer.generate(model, "Hello", temperature=0.8, top_p=0.95, stop=[answer.text[3]])
    >>> cut.finish_reason, answer.text.startswith(cut.text)
    ('stop_string', True)
    """
    batch = [prompts] if isinstance(prompts, str) else prompts
    ids = [_encode(model, prompt) for prompt in batch]
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "stop": stop,
        "seed": seed,
    }
    answers = _titer.generate(model, model.tokenizer, ids, **options)
    return answers[0] if isinstance(prompts, str) else answers


def _encode(model: Model, prompt: str | Conversation | Sequence[int]) -> list[int]:
    is_conversation = not isinstance(prompt, str) and any(isinstance(part, Mapping) for part in prompt)
    if not isinstance(prompt, str) and not is_conversation:
        return list(cast("Sequence[int]", prompt))
    messages = cast("str | Conversation", prompt)
    if model.chat_template is not None:
        return model.tokenizer.encode(model.chat_template.render_prompt(messages), add_special_tokens=False)
    if is_conversation:
        raise ValueError("[generate] the model has no chat template for a conversation; give it a text")
    return model.tokenizer.encode(str(messages))
