"""Records become token ids with the spans of their answers.

A record is rendered as a whole with the model's own chat template and tokenised as a whole, so that a model learns from
what it will read. An answer begins where the tokens of the conversation up to it end, and includes the token that ends
its turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from titer._titer import TrainingData
from titer.chat import ChatTemplate

if TYPE_CHECKING:
    from titer.loading import Model

Conversation: TypeAlias = list[dict[str, str]]
Sequences: TypeAlias = list[tuple[list[int], list[tuple[int, int]]]]

_TOGETHER = 32  # conversations that are rendered in one request


def tokenise(model: Model, records: Iterable[Any]) -> TrainingData:
    """Return the token ids that a model learns from, with the spans of the answers.

    Parameters
    ----------
    model : Model
        Its tokenizer and chat template are used; without a template, `prompt` and `response` are plain text, and the
        model's first end-of-sequence token follows.
    records : Dataset or iterable of records
        Each has `messages` (a list of `role` and `content`, ending with the assistant's), of which all turns of the
        assistant are learned, or `prompt` and `response`.

    Returns
    -------
    TrainingData

    Raises
    ------
    ValueError
        If there is no record; if one has no answer, is longer than the model's context, or cannot be rendered; or if
        the template writes a turn differently once an answer follows. The message names the record.

    Examples
    --------
    >>> data = titer.training.tokenise(model, [{"prompt": "Is rain wet?", "response": "yes"}])
    >>> ids, [(begin, end)] = data[0]
    >>> model.tokenizer.decode(ids[begin:end])
    'yes<|im_end|>'
    """
    sequences: Sequences = []
    numbered = enumerate(records)
    while some := [(_name(i, record), record) for i, record in islice(numbered, _TOGETHER)]:
        sequences.extend(_rendered(model, some) if model.chat_template is not None else _plain(model, some))
    if not sequences:
        raise ValueError("[tokenise] expected at least one record, got none")
    return TrainingData(sequences)


def _name(index: int, record: Any) -> str:
    own = record.get("id") if isinstance(record, Mapping) else getattr(record, "id", None)
    return f"record {index}" + (f" ({own!r})" if own else "")


def _messages(record: Any, name: str) -> Conversation:
    if not isinstance(record, Mapping):
        messages: Any = record.messages
    elif "messages" in record:
        messages = record["messages"]
    elif "prompt" in record and "response" in record:
        messages = [
            {"role": "user", "content": record["prompt"]},
            {"role": "assistant", "content": record["response"]},
        ]
    else:
        raise ValueError(f"[tokenise] {name} must have 'messages', or 'prompt' and 'response', got {sorted(record)}")
    if not isinstance(messages, Sequence) or not all(_is_message(message) for message in messages):
        raise ValueError(f"[tokenise] {name} must have messages with a role and a content that are texts")
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError(f"[tokenise] the last message of {name} must be the assistant's: that is what is learned")
    for message in messages:
        if message["role"] == "assistant" and not message["content"].strip():
            raise ValueError(f"[tokenise] {name} has an empty answer; leave it out")
    return list(messages)


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _is_from_prompt(record: Any) -> bool:
    return "messages" not in record if isinstance(record, Mapping) else bool(record.from_prompt)


def _plain(model: Model, records: Sequence[tuple[str, Any]]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    for name, record in records:
        messages = _messages(record, name)
        if not _is_from_prompt(record):
            raise ValueError(
                f"[tokenise] {name} is a conversation, and the model has no chat template; give 'prompt' and 'response'"
            )
        prompt, answer = (message["content"] for message in messages)
        ids = model.tokenizer.encode(prompt + answer) + model.eos_token_ids[:1]
        begin = _common(ids, model.tokenizer.encode(prompt))
        yield _checked(model, ids, [(begin, len(ids))], name)


def _rendered(model: Model, records: Sequence[tuple[str, Any]]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    template = model.chat_template
    assert template is not None
    conversations = [_messages(record, name) for name, record in records]
    names = [name for name, _ in records]
    turns = [[j for j, turn in enumerate(turns) if turn["role"] == "assistant"] for turns in conversations]
    wholes = _render(template, conversations, names, generation_prompt=False)
    opened = _openings(template, [(c[:j], n) for c, n, at in zip(conversations, names, turns, strict=True) for j in at])
    closed = _render(
        template,
        [c[: j + 1] for c, at in zip(conversations, turns, strict=True) for j in at[:-1]],
        [n for n, at in zip(names, turns, strict=True) for _ in at[:-1]],
        generation_prompt=False,
    )
    openings, closings = iter(opened), iter(closed)
    for name, whole, at in zip(names, wholes, turns, strict=True):
        ids = model.tokenizer.encode(whole, add_special_tokens=False)
        answers = []
        for j in at:
            opening = next(openings)
            closing = whole if j == at[-1] else next(closings)
            if not (closing.startswith(opening) and whole.startswith(closing)):
                raise ValueError(
                    f"[tokenise] the chat template writes the turns before message {j} of {name} differently once an "
                    "answer follows, so that no model would be asked what it learned; use one answer per record, or "
                    "another template"
                )
            begin = _common(ids, model.tokenizer.encode(opening, add_special_tokens=False))
            end = _common(ids, model.tokenizer.encode(closing, add_special_tokens=False))
            answers.append((begin, _end_of_turn(model, ids, begin, end)))
        yield _checked(model, ids, answers, name)


def _openings(template: ChatTemplate, asked: Sequence[tuple[Conversation, str]]) -> list[str]:
    """Return what the model reads in front of answers."""
    conversations = [messages for messages, _ in asked]
    names = [name for _, name in asked]
    with_prompt = _render(template, conversations, names, generation_prompt=True)
    if with_prompt[0] != template.render(conversations[0], add_generation_prompt=False):
        return with_prompt
    return [template.render_prompt(messages) for messages in conversations]  # the template has no generation prompt


def _render(
    template: ChatTemplate, conversations: Sequence[Conversation], names: Sequence[str], generation_prompt: bool
) -> list[str]:
    try:
        return [
            text
            for first in range(0, len(conversations), _TOGETHER)
            for text in template.render_all(conversations[first : first + _TOGETHER], generation_prompt)
        ]
    except ValueError:
        for messages, name in zip(conversations, names, strict=True):  # which one it is
            try:
                template.render(messages, generation_prompt)
            except ValueError as error:
                raise ValueError(f"[tokenise] {name}: {error}") from error
        raise


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _end_of_turn(model: Model, ids: Sequence[int], begin: int, end: int) -> int:
    """Return the end of an answer: behind the first token that ends it, or behind what the template writes."""
    return next((i + 1 for i in range(begin, end) if ids[i] in model.eos_token_ids), end)


def _checked(
    model: Model, ids: list[int], answers: list[tuple[int, int]], name: str
) -> tuple[list[int], list[tuple[int, int]]]:
    if len(ids) > model.max_length:
        raise ValueError(
            f"[tokenise] {name} has {len(ids)} tokens, the model takes at most {model.max_length}: its answer would be "
            "cut; shorten it, or leave it out"
        )
    return ids, answers


def hash_of_template(model: Model) -> str:
    """Return the hash of a model's chat template, an empty one where it has none.

    Examples
    --------
    >>> from titer.training.tokenising import hash_of_template
    >>> hash_of_template(model) == model.chat_template.hash
    True
    """
    return "" if model.chat_template is None else model.chat_template.hash
