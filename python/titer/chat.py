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

    def renderer(self, messages: str | Sequence[Mapping[str, Any]], slot: str = "{slot}") -> Callable[[str], str]:
        """Return a function from the text of a slot to the text that the model reads, up to where it answers.

        Parameters
        ----------
        messages
            A user message, or turns with `role` and `content`; one content holds `slot` exactly once.
        slot
            Marks the place that the function's argument takes.

        Raises
        ------
        ValueError
            If the slot is missing or repeated.
        """
        question = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        turns: list[Mapping[str, Any]] = list(question)
        found = sum(str(turn["content"]).count(slot) for turn in turns)
        if found != 1:
            raise ValueError(f"[prompt] the messages must hold {slot} exactly once, found it {found} times")

        def render(slot_text: str) -> str:
            return self.render([{**turn, "content": turn["content"].replace(slot, slot_text)} for turn in turns])

        return render


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
