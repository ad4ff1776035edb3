"""A rendered chat is what transformers renders, for every way a folder can state its template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import titer
from tiny_models import CHAT_TEMPLATE, train_tokenizer, write_tiny_llama
from titer.chat import ChatTemplate

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hello <b>&amp;</b> {slot} "},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Bye."},
]

TEMPLATES = {
    "chatml": CHAT_TEMPLATE,
    "tokens": "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{{ eos_token }}{% endfor %}",
    "blocks": "{%- for m in messages %}\n {% if m.role == 'user' %}\nQ: {{ m.content }}\n {% endif %}\n{%- endfor %}\n",
    "date": "{{ strftime_now('%Y') }}{{ messages | tojson }}",
    "tools": "{% if tools is none %}no tools{% else %}tools{% endif %}{{ documents is none }}{{ missing_token }}",
    "loop": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
}


@pytest.fixture(params=TEMPLATES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path, chat_template=TEMPLATES[request.param])


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_rendering_equals_apply_chat_template(folder: Path, add_generation_prompt: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for messages in (CONVERSATION, CONVERSATION[1:2], [{"role": "user", "content": "x", "name": None}]):
        expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        for template in (ChatTemplate.from_folder(folder), ChatTemplate.from_tokenizer(tokenizer)):
            assert template.render(messages, add_generation_prompt=add_generation_prompt) == expected


def test_hash_is_that_of_the_template(folder: Path) -> None:
    text = (folder / "chat_template.jinja").read_text()
    template = ChatTemplate.from_folder(folder)
    assert template.text == text
    assert template.hash == hashlib.sha256(text.encode()).hexdigest()
    assert ChatTemplate.from_tokenizer(AutoTokenizer.from_pretrained(folder)).hash == template.hash


@pytest.mark.parametrize(
    "stated",
    [
        "{{ bos_token }}plain",
        [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "default {{ eos_token }}"}],
    ],
    ids=["string", "named"],
)
def test_template_in_the_tokenizer_config_is_found(tmp_path: Path, stated: Any) -> None:
    folder = write_tiny_llama(tmp_path, chat_template=None)
    bos = {"content": "<|im_start|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}
    edit_config(folder, chat_template=stated, bos_token=bos | {"__type": "AddedToken", "single_word": False})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    assert ChatTemplate.from_folder(folder).render(CONVERSATION) == expected
    assert ChatTemplate.from_folder(folder).hash == ChatTemplate.from_tokenizer(tokenizer).hash


def test_special_token_that_only_the_tokenizer_class_knows_is_used(tmp_path: Path) -> None:
    folder = write_tiny_llama(tmp_path, chat_template="{{ bos_token }}|{{ eos_token }}")
    edit_config(folder, tokenizer_class="GPT2Tokenizer", bos_token=None, eos_token=None)
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(CONVERSATION, tokenize=False)
    assert expected == "<|endoftext|>|<|endoftext|>"
    assert ChatTemplate.from_folder(folder).render(CONVERSATION) == expected


def test_legacy_special_tokens_map_is_used(tmp_path: Path) -> None:
    folder = write_tiny_llama(tmp_path, chat_template="{{ bos_token }}")
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|endoftext|>"}))
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(CONVERSATION, tokenize=False)
    assert expected == "<|endoftext|>"
    assert ChatTemplate.from_folder(folder).render(CONVERSATION) == expected


def test_model_without_template_has_none(tmp_path: Path) -> None:
    folder = write_tiny_llama(tmp_path / "tiny", chat_template=None)
    assert ChatTemplate.from_folder(folder) is None
    assert titer.load_model(folder).chat_template is None
    (folder / "tokenizer_config.json").unlink()
    assert ChatTemplate.from_folder(folder) is None
    with pytest.raises(ValueError, match="the tokenizer has no chat template"):
        ChatTemplate.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(320)))
    with pytest.raises(FileNotFoundError, match="absent"):
        ChatTemplate.from_folder(tmp_path / "absent")


def test_template_whose_special_tokens_cannot_be_known_is_an_error(tmp_path: Path) -> None:
    folder = write_tiny_llama(tmp_path, chat_template="{{ bos_token }}")
    edit_config(folder, tokenizer_class="NoSuchTokenizer", bos_token=None)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"\[chat\].*special tokens.*\({tmp_path}\)"):
        ChatTemplate.from_folder(folder)


def test_no_messages_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="empty conversation"):
        ChatTemplate.from_folder(tiny_folder).render([])


def test_smollm2_adds_its_system_prompt(smollm2_folder: Path) -> None:
    template = ChatTemplate.from_folder(smollm2_folder)
    expected = AutoTokenizer.from_pretrained(smollm2_folder).apply_chat_template(
        CONVERSATION[1:], tokenize=False, add_generation_prompt=True
    )
    assert template.render(CONVERSATION[1:]) == expected
    assert expected.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
