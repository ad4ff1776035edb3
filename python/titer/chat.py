"""Renders messages with a model's own chat template, and names the template by its hash.

Rendering is `apply_chat_template` of transformers with its sandbox. A template needs no vocabulary, so a folder is
rendered by a bare tokenizer object that holds only the template and the special tokens it names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKEN_VARIABLE = re.compile(r"\b\w+_token\b")  # bos_token, eos_token and what models add, e.g. image_token
_ANSWER = "\ue000answer\ue001"  # stands in for an answer: private-use characters, which no template writes


class ChatTemplate:
    r"""The chat template of one model.

    Examples
    --------
    >>> from titer.chat import ChatTemplate
    >>> template = ChatTemplate.from_folder(model_folder)
    >>> template.render([{"role": "user", "content": "Hello"}]).endswith("assistant\n")
    True
    >>> len(template.hash)
    64
    """

    def __init__(self, make_tokenizer: Callable[[], PreTrainedTokenizerBase], text: str) -> None:
        self._make_tokenizer = make_tokenizer
        self._text = text

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        """What renders, made at the first use: importing transformers takes longer than loading a small model."""
        return self._make_tokenizer()

    @classmethod
    def from_folder(cls, path: str | os.PathLike[str]) -> ChatTemplate | None:
        """Read the template of a model folder.

        Files take precedence as in transformers: `chat_template.jinja`, then `tokenizer_config.json`. Where several
        templates are named, the one called `default` is used.

        Returns
        -------
        ChatTemplate or None
            None if the folder states no template, as those of base models do.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist.
        ValueError
            If the folder states a template that cannot be used; the message names the file.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"[chat] expected a model folder, found none ({folder})")
        config_file = folder / "tokenizer_config.json"
        config = _read_config(config_file) if config_file.is_file() else {}
        text = _template_text(folder, config)
        if text is None:
            return None
        tokens = {name: _content(config.get(name)) for name in set(_TOKEN_VARIABLE.findall(text))}
        legacy_tokens = "added_tokens_decoder" not in config and (folder / "special_tokens_map.json").is_file()
        if None in tokens.values() or (tokens and legacy_tokens):
            # The value comes from the tokenizer's class or other files; only loading it tells.
            from transformers import AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            except Exception as error:  # of any class: every kind of tokenizer has its own loader
                raise ValueError(
                    f"[chat] the chat template names special tokens that only the tokenizer tells, and transformers "
                    f"cannot load that: {error} ({folder})"
                ) from error
            return cls(lambda: tokenizer, text)
        return cls(lambda: _bare_tokenizer(tokens), text)

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
        """Use the template of a transformers tokenizer.

        Raises
        ------
        ValueError
            If the tokenizer has no chat template.
        """
        if not tokenizer.chat_template:
            raise ValueError("[chat] the tokenizer has no chat template; use a prompt made of plain text")
        return cls(lambda: tokenizer, tokenizer.get_chat_template())

    @property
    def text(self) -> str:
        """The template's Jinja source."""
        return self._text

    @property
    def hash(self) -> str:
        """SHA-256 of the template's source, as hexadecimal digits."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Return the text that the model reads for `messages`.

        Parameters
        ----------
        messages
            Turns with `role` and `content`.
        add_generation_prompt
            Whether the text ends where the assistant's answer begins.

        Raises
        ------
        ValueError
            If there are no messages, or the template refuses them (for example roles that do not alternate).
        """
        from jinja2 import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self._text,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except TemplateError as error:
            raise ValueError(f"[chat] the chat template refused the messages: {error}") from error
        return str(rendered)

    def render_prompt(self, messages: str | Sequence[Mapping[str, Any]]) -> str:
        """Return the text that the model reads up to where it answers.

        That is what `render` gives with the generation prompt. Where a template has none, although it does write
        something in front of an answer, what it writes there is appended.

        Parameters
        ----------
        messages
            A user message, or turns with `role` and `content`.

        Raises
        ------
        ValueError
            As `render`.

        Examples
        --------
        >>> from titer.chat import ChatTemplate
        >>> template = ChatTemplate.from_folder(model_folder)
        >>> template.render_prompt("Hello") == template.render([{"role": "user", "content": "Hello"}])
        True
        """
        turns = _turns(messages)
        text = self.render(turns)
        if text != self.render(turns, add_generation_prompt=False):
            return text
        try:
            answered = self.render([*turns, {"role": "assistant", "content": _ANSWER}], add_generation_prompt=False)
        except ValueError:  # the conversation cannot go on: the text is all there is
            return text
        opened, found, _ = answered.partition(_ANSWER)
        # White space alone is left to the answer: after "[/INST]" models write it themselves.
        return opened if found and opened.startswith(text) and not opened[len(text) :].isspace() else text

    def renderer(self, messages: str | Sequence[Mapping[str, Any]], slot: str = "{slot}") -> Callable[[str], str]:
        """Return a function from the text of a slot to the text that the model reads, up to where it answers.

        Parameters
        ----------
        messages
            A user message, or turns with `role` and `content`, a text or a list of parts; one of the contents, of any
            turn, holds `slot` exactly once.
        slot
            Marks the place that the function's argument takes.

        Raises
        ------
        ValueError
            If the slot is missing or repeated.
        TypeError
            If the messages are no text and no list of dictionaries with a role.
        """
        turns = _turns(messages)
        if not slot:
            raise ValueError("[prompt] the slot marker must not be empty")
        found = sum(_count(turn.get("content"), slot) for turn in turns)
        if found != 1:
            raise ValueError(f"[prompt] the messages must hold {slot} exactly once, found it {found} times")

        def render(slot_text: str) -> str:
            return self.render_prompt(
                [{**turn, "content": _replace(turn.get("content"), slot, slot_text)} for turn in turns]
            )

        return render


def _turns(messages: Any) -> list[Mapping[str, Any]]:
    """Return the turns of what a caller gave as messages."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence):
        raise TypeError(f"[chat] expected a user message or a list of messages, got {type(messages).__name__}")
    for i, turn in enumerate(messages):
        if not isinstance(turn, Mapping):
            kind = type(turn).__name__
            raise TypeError(f"[chat] message {i} must be a dictionary with a role and a content, got {kind}")
        if not isinstance(turn.get("role"), str):
            raise TypeError(f"[chat] the role of message {i} must be a text such as 'user', got {turn.get('role')!r}")
    return list(messages)


def _count(content: Any, slot: str) -> int:
    """Occurrences in a content: a text, or parts that hold texts."""
    if isinstance(content, str):
        return content.count(slot)
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()
    return sum(_count(part, slot) for part in parts)


def _replace(content: Any, slot: str, text: str) -> Any:
    if isinstance(content, str):
        return content.replace(slot, text)
    if isinstance(content, Mapping):
        return {key: _replace(part, slot, text) for key, part in content.items()}
    return [_replace(part, slot, text) for part in content] if isinstance(content, list) else content


def _bare_tokenizer(tokens: Mapping[str, str | None]) -> PreTrainedTokenizerBase:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    return PreTrainedTokenizerBase(**tokens)


def _template_text(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"[chat] not valid UTF-8: {error} ({file})") from error
    template = config.get("chat_template")
    if not template:
        return None
    config_file = folder / "tokenizer_config.json"
    if isinstance(template, list) and all(isinstance(entry, dict) for entry in template):
        named = {entry.get("name"): entry.get("template") for entry in template}
        if "default" not in named:
            names = ", ".join(str(name) for name in named)
            raise ValueError(f"[chat] expected a chat template called default, got {names} ({config_file})")
        template = named["default"]
    if not isinstance(template, str):
        raise ValueError(
            f"[chat] 'chat_template' must be a text or a list of named texts, got {type(template).__name__} "
            f"({config_file})"
        )
    return template


def _read_config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # malformed UTF-8 included
        raise ValueError(f"[chat] not valid JSON: {error} ({file})") from error
    if not isinstance(content, dict):
        raise ValueError(f"[chat] expected a JSON object, got {type(content).__name__} ({file})")
    return content


def _content(token: Any) -> str | None:
    """Return the text of a special token, which tokenizer_config.json gives as a string or as a dictionary.

    None for anything else, which is left to the tokenizer's class.
    """
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None
