"""Renders messages with a model's own chat template, and names the template by its hash.

Rendering is what `apply_chat_template` of transformers does, in a process of its own with limits: a template may come
from a stranger. It needs no vocabulary, only the template and the special tokens that it names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titer._titer import folder_file, read_folder_file, read_folder_json
from titer.template_process import TemplateProcess

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONFIG_FILE = "tokenizer_config.json"
_TEMPLATE_FILE = "chat_template.jinja"
_MAX_BYTES = 8 << 20  # of each; the longest templates have some 50 KB, Gemma's configuration has 1.2 MB
_TOKENIZER_SUFFIXES = {".json", ".jinja", ".model", ".txt"}  # of the files that transformers reads a tokenizer from
_PROCESS = TemplateProcess()

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

    def __init__(self, text: str, special_tokens: Mapping[str, Any], origin: str) -> None:
        self._text = text
        self._special_tokens = dict(special_tokens)
        self._origin = origin

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
        config_text = read_folder_json(folder, _CONFIG_FILE, _MAX_BYTES)
        config = {} if config_text is None else json.loads(config_text)
        text, file = _template_text(folder, config)
        if text is None:
            return None
        tokens = {name: _content(config.get(name)) for name in set(_TOKEN_VARIABLE.findall(text))}
        legacy_tokens = "added_tokens_decoder" not in config and (folder / "special_tokens_map.json").exists()
        if None in tokens.values() or (tokens and legacy_tokens):
            # The value comes from the tokenizer's class or other files; only loading it tells.
            return cls(text, _loaded_special_tokens(folder), str(file))
        return cls(text, tokens, str(file))

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
        return cls(tokenizer.get_chat_template(), tokenizer.special_tokens_map, type(tokenizer).__name__)

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
            If there are no messages, or the template refuses them (for example roles that do not alternate), fails, or
            takes more than 3 s of processor time or 64 MiB + 16 times the length of template and messages in memory.
        """
        return self.render_all([messages], add_generation_prompt)[0]

    def render_all(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], add_generation_prompt: bool = True
    ) -> list[str]:
        """Return what `render` gives for each of several conversations, for which the limits hold together.

        Raises
        ------
        ValueError
            As `render`; it does not say which of the conversations is the one.
        """
        if not all(conversations):
            raise ValueError("[chat] expected at least one message, got an empty conversation")
        try:
            rendered = _PROCESS.ask(
                "render",
                template=self._text,
                special_tokens=self._special_tokens,
                conversations=[[dict(message) for message in messages] for messages in conversations],
                add_generation_prompt=add_generation_prompt,
            )
        except TypeError as error:
            raise TypeError(f"[chat] the messages must hold what JSON can: {error}") from None
        except ValueError as error:
            raise ValueError(f"[chat] the chat template cannot render the messages: {error} ({self._origin})") from None
        texts = [str(text) for text in rendered]
        for text in texts:
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(
                    f"[chat] the chat template wrote a lone surrogate, which is no character ({self._origin})"
                )
        return texts

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
            As `render`, and if the last turn is the assistant's.
        TypeError
            If the messages are no text and no list of dictionaries with a role.

        Examples
        --------
        >>> from titer.chat import ChatTemplate
        >>> template = ChatTemplate.from_folder(model_folder)
        >>> template.render_prompt("Hello") == template.render([{"role": "user", "content": "Hello"}])
        True
        """
        turns = _turns(messages)
        if turns and turns[-1]["role"] == "assistant":
            raise ValueError(
                "[chat] the last message is the assistant's, and going on with it is not supported; end with a message "
                "of another role"
            )
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


def _template_text(folder: Path, config: Mapping[str, Any]) -> tuple[str | None, Path]:
    """Return the template and the file that states it."""
    file = folder / _TEMPLATE_FILE
    content = read_folder_file(folder, _TEMPLATE_FILE, _MAX_BYTES)
    if content is not None:
        try:
            return content.decode(), file
        except UnicodeDecodeError as error:
            raise ValueError(f"[chat] not valid UTF-8: {error} ({file})") from error
    template, file = config.get("chat_template"), folder / _CONFIG_FILE
    if not template:
        return None, file
    if isinstance(template, list) and all(isinstance(entry, dict) for entry in template):
        named = {str(entry.get("name"))[:40]: entry.get("template") for entry in template}
        if "default" not in named:
            raise ValueError(f"[chat] expected a chat template called default, got {list(named)[:8]} ({file})")
        template = named["default"]
    if not isinstance(template, str):
        raise ValueError(
            f"[chat] 'chat_template' must be a text or a list of named texts, got {type(template).__name__} ({file})"
        )
    return template, file


def _loaded_special_tokens(folder: Path) -> Mapping[str, Any]:
    """Return the special tokens that transformers finds in a folder once it loads the tokenizer."""
    for entry in folder.iterdir():
        if entry.suffix not in _TOKENIZER_SUFFIXES:
            continue
        if not entry.name.isprintable():
            raise ValueError(f"[chat] the name of a file is not printable: {entry.name!a} ({folder})")
        if not folder_file(folder, entry.name).is_file():
            raise ValueError(f"[chat] expected a regular file, got a folder, device, pipe or socket ({entry})")
    try:
        tokens: Mapping[str, Any] = _PROCESS.ask("special_tokens", folder=str(folder))
    except ValueError as error:
        raise ValueError(
            f"[chat] the chat template names special tokens that only the tokenizer tells, and transformers cannot "
            f"load that: {error} ({folder})"
        ) from None
    return tokens


def _content(token: Any) -> str | None:
    """Return the text of a special token, which tokenizer_config.json gives as a string or as a dictionary.

    None for anything else, which is left to the tokenizer's class.
    """
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None
