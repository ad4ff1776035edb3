"""Chat templates that fail, want out of their sandbox, never end, or fill the memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bad_inputs.row import CANARY, Row, edit, pickled, remove, together, write

_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"

_TEMPLATES: list[tuple[str, str, str]] = [
    # mistakes
    ("a tag without an end", "{% for %}", "Expected an expression|expected token"),
    ("an unknown tag", "{% import os %}", "expected token"),
    ("an unknown filter", "{{ messages | pickle }}", "No filter named 'pickle'"),
    ("an index that is not there", "{{ messages[5].content }}", "has no element 5"),
    ("a division by zero", "{{ 1 // 0 }}", "by zero"),
    ("a sum of kinds", "{{ messages + 1 }}", "can only concatenate list"),
    ("a message of its own", "{{ raise_exception('roles must\\nalternate\\u001b[31m') }}", "roles must alternate"),
    ("a long message", "{{ raise_exception('x' * 1000000) }}", r"x{300}\.\.\. \("),
    ("a lone surrogate", "{{ '\\ud800' }}", "wrote a lone surrogate"),
    # the way out of the sandbox
    ("classes", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    ("globals", "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}", "unsafe"),
    ("globals by a filter", "{{ (cycler | attr('__init__')).__globals__ }}", "unsafe|undefined|has no attribute"),
    ("a format string", "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", "unsafe"),
    ("the context", "{{ self._TemplateReference__context.environment }}", "unsafe"),
    ("a frame", "{% set g = (messages | map('upper')).gi_frame %}{{ g.f_globals.os.system('touch CANARY') }}",
     "unsafe|undefined"),
    ("code of a macro", "{% macro m() %}{% endmacro %}{{ m._func.__code__ }}", "unsafe"),
    ("a file", "{% include '/etc/passwd' %}", "no loader"),
    ("an import", "{% import 'os' as os %}{{ os.system('touch CANARY') }}", "no loader"),
    ("a change of the messages", "{{ messages.append(messages[0]) }}", "unsafe"),
    # no end
    ("a long range", "{% for i in range(10 ** 9) %}x{% endfor %}", "Range too big"),
    ("loops in loops", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
     "more than 3 s of processor time"),
    ("a macro of itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    ("macros that branch", "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
     "more than 3 s of processor time|more than 64 MiB"),
    ("a power of a power", "{{ 3 ** (3 ** 20) }}",
     "more than 3 s of processor time|Exceeds the limit|more than 64 MiB"),
    # no bound
    ("a long string", "{{ 'x' * 10 ** 10 }}", "more than 64 MiB of memory"),
    ("a long list", "{{ [0] * 10 ** 9 }}", "more than 64 MiB of memory"),
    ("a wide string", "{{ 'x' | center(10 ** 10) }}", "more than 64 MiB of memory"),
    ("a wide number", "{{ '%9999999999d' | format(1) }}", "more than 64 MiB of memory"),
    ("a replacement", "{{ ('x' * 10 ** 6).replace('x', 'y' * 10 ** 6) }}", "more than 64 MiB of memory"),
    ("a text that doubles",
     "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
     "more than 64 MiB of memory"),
    ("much text", "{{ messages[0].role * 1500000 }}", "writes more than 4 MiB of text"),
    # no bottom
    ("many brackets", "{{" + "(" * 50_000 + ")" * 50_000 + "}}", "recursion"),
    ("many lists", "{{" + "[" * 50_000 + "]" * 50_000 + "}}", "recursion"),
    ("many minus signs", "{{" + "-" * 50_000 + "1}}", "recursion"),
    ("many conditions", "{% if 1 %}" * 5000 + "{% endif %}" * 5000, "recursion"),
]  # fmt: skip

# What the configuration may state instead.
_STATED: list[tuple[str, Any, str]] = [
    ("a number", 3, "must be a text or a list of named texts, got int"),
    ("an object", {"default": "x"}, "must be a text or a list of named texts, got dict"),
    ("a list of texts", ["x"], "must be a text or a list of named texts, got list"),
    ("a list without texts", [{"name": "default"}], "got NoneType"),
    ("a list without a default", [{"name": "rag", "template": "x"}], "called default, got .'rag'"),
    ("a list of long names", [{"name": "n" * 1_000_000, "template": "x"}] * 3, "called default, got .'n+'"),
]


def _template(text: str) -> Any:
    def damage(folder: Path) -> None:
        write(_FILE, text.replace("CANARY", str(folder.parent / CANARY)))(folder)

    return damage


def _in_config(value: Any) -> Any:
    return together(remove(_FILE), edit(_CONFIG, {"chat_template": value}))


def _only_the_tokenizer_tells(*others: Any) -> Any:
    """A template with a special token that transformers has to look up."""
    config = edit(_CONFIG, {"bos_token": ..., "tokenizer_class": "GPT2Tokenizer"})
    return together(_template("{{ bos_token }}"), config, *others)


def _code(folder: Path) -> None:
    (folder / "code.py").write_text(f"open({str(folder.parent / CANARY)!r}, 'w')\nclass Tokenizer: ...\n")


def rows() -> Iterator[Row]:
    for what, text, message in _TEMPLATES:
        yield Row(f"template with {what}", _FILE, _template(text), message)
    yield Row("template in the configuration", _CONFIG, _in_config("{{ 1 // 0 }}"), "by zero")
    yield Row("template that is not UTF-8", _FILE, write(_FILE, b"\xff"), "not valid UTF-8")
    for what, value, message in _STATED:
        yield Row(f"template stated as {what}", _CONFIG, _in_config(value), message)
    long = "[" + json.dumps("x" * 9_000_000) + "]"
    damage = write(_CONFIG, f'{{"chat_template": {long}}}')
    yield Row("tokenizer_config of 9 MB", _CONFIG, together(remove(_FILE), damage), "the limit is 8388608")
    for what, name, content in [
        ("no JSON", "special_tokens_map.json", b"{"),
        ("nested JSON", "special_tokens_map.json", b'{"bos_token":' * 100_000),
        ("nested JSON", "added_tokens.json", b"[" * 100_000),
        ("a pickle", "vocab.json", None),
    ]:
        other = (
            (lambda folder: write("vocab.json", pickled(folder))(folder)) if content is None else write(name, content)
        )
        class_ = (
            edit(_CONFIG, {"added_tokens_decoder": ...}) if name == "special_tokens_map.json" else edit(_CONFIG, {})
        )
        damage = _only_the_tokenizer_tells(remove("tokenizer.json"), class_, other)
        yield Row(f"special tokens from {name} with {what}", "model", damage, "transformers cannot", load="show")
    pipe = _only_the_tokenizer_tells(lambda folder: os.mkfifo(folder / "vocab.json"))
    yield Row("special tokens from a pipe", "vocab.json", pipe, "got a folder, device, pipe or socket")
    code = edit(_CONFIG, {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}, "tokenizer_class": "Tokenizer"})
    damage = _only_the_tokenizer_tells(code, _code)
    yield Row("special tokens from code", "model", damage, "transformers cannot load that")
