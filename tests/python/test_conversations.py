"""Prompts from conversations: templates shaped as those of known families, the slot in any turn of several."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import titer
from tiny_models import CHAT_TEMPLATE, randomise, write_tiny_llama
from titer.chat import ChatTemplate
from tokenizer_cases import gemma, gpt2, llama2, mistral, phi3, qwen2

Message = dict[str, Any]

# What opens an answer, if the conversation ends with the user's turn.
SHAPES = {
    "chatml": (gpt2, CHAT_TEMPLATE),
    "chatml without generation prompt": (
        qwen2,
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    ),
    "system text inside the first user turn, no generation prompt": (
        llama2,
        "{% if messages[0].role == 'system' %}{% set first = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
        "{% for m in turns %}{% set text = (first if loop.first else '') + m.content %}"
        "{% if m.role == 'user' %}<s>[INST] {{ text | trim }} [/INST]{% else %} {{ text | trim }} </s>{% endif %}"
        "{% endfor %}",
    ),
    "roles that must alternate": (
        mistral,
        "<s>{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
    ),
    "trimmed, no system turn, another name for the assistant": (
        gemma,
        "<s>{% if messages[0].role == 'system' %}{{ raise_exception('system turns are not supported') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}",
    ),
    "tokens that take the white space behind them": (
        phi3,
        "{% for m in messages %}<|{{ 'user' if m.role == 'system' else m.role }}|>\n{{ m.content }}<|end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
}
HAS_NO_SYSTEM = {"roles that must alternate", "trimmed, no system turn, another name for the assistant"}

SYSTEM = {"role": "system", "content": "Be brief, please."}
FIRST = {"role": "user", "content": "What is the dose?"}
REPLY = {"role": "assistant", "content": "12 mg."}
SECOND = {"role": "user", "content": "And for the children?"}


def with_slot(message: Message) -> Message:
    return message | {"content": message["content"][:-1] + " {slot}?"}


CONVERSATIONS = {
    "one turn": [with_slot(FIRST)],
    "slot at the start": [{"role": "user", "content": "{slot} is it?"}],
    "slot alone": [{"role": "user", "content": "{slot}"}],
    "system turn": [SYSTEM, with_slot(FIRST)],
    "slot in the system turn": [with_slot(SYSTEM), FIRST],
    "slot in the first of two questions": [with_slot(FIRST), REPLY, SECOND],
    "slot in the last of two questions": [SYSTEM, FIRST, REPLY, with_slot(SECOND)],
    "slot in an earlier answer": [FIRST, with_slot(REPLY), SECOND],
}


@dataclass(frozen=True)
class Chat:
    """A tokenizer with a template, in transformers and here."""

    peer: PreTrainedTokenizerFast
    owner: Any  # what Prompt.from_chat takes in place of a model

    def peer_ids(self, messages: list[Message]) -> list[int]:
        ids: list[int] = self.peer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return ids


@cache
def chat(shape: str) -> Chat:
    make, template = SHAPES[shape]
    trained = make()
    peer = PreTrainedTokenizerFast(tokenizer_object=trained, chat_template=template)
    ours = titer.Tokenizer.from_json(trained.to_str())
    return Chat(peer, SimpleNamespace(tokenizer=ours, chat_template=ChatTemplate.from_tokenizer(peer)))


def filled(messages: list[Message], text: str) -> list[Message]:
    return [message | {"content": message["content"].replace("{slot}", text)} for message in messages]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_conversation_is_read_as_transformers_reads_it(shape: str, conversation: str) -> None:
    messages = CONVERSATIONS[conversation]
    if shape in HAS_NO_SYSTEM and messages[0]["role"] == "system":
        with pytest.raises(ValueError, match=r"\[chat\] the chat template cannot render .*: (roles|system)"):
            titer.Prompt.from_chat(chat(shape).owner, messages, target="Sure", initial="x y")
        return
    prompt = titer.Prompt.from_chat(chat(shape).owner, messages, target="Sure, the dose", initial="the x y")
    opening = chat(shape).peer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    opening = opening if shape == "chatml without generation prompt" else []
    for text in ("the x y", "dose 12", "naïve東"):
        expected = chat(shape).peer_ids(filled(messages, text)) + opening
        assert prompt.encode(text) == expected
        if text == "the x y":
            assert prompt.before_ids + prompt.slot_ids + prompt.after_ids == expected
    assert prompt.slot_text(prompt.slot_ids) == "the x y"
    assert prompt.valid(prompt.slot_ids)
    assert prompt.answer_text("the x y", prompt.target_ids) == "Sure, the dose"


def test_white_space_before_an_answer_is_the_answers() -> None:
    """As models were trained: the text ends with `[/INST]`, and the answer's first token holds the space."""
    template = chat("system text inside the first user turn, no generation prompt").owner.chat_template
    assert template.render_prompt("Hi") == "<s>[INST] Hi [/INST]"
    assert template.render([FIRST, REPLY]).endswith("[/INST] 12 mg. </s>")


def test_a_template_that_takes_no_further_turn_is_left_as_it_is() -> None:
    text = "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0].content }}!"
    peer = PreTrainedTokenizerFast(tokenizer_object=gpt2(), chat_template=text)
    assert ChatTemplate.from_tokenizer(peer).render_prompt("Hi") == "Hi!"


def test_a_content_may_be_a_list_of_parts() -> None:
    text = "{% for m in messages %}{% for p in m.content %}{{ p.text }}\n{% endfor %}{% endfor %}"
    template = ChatTemplate.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=gpt2(), chat_template=text))
    parts = [{"type": "text", "text": "Look:"}, {"type": "text", "text": "what is {slot}?"}]
    render = template.renderer([{"role": "user", "content": parts}])
    assert render("this") == "Look:\nwhat is this?\n"
    assert parts[1]["text"] == "what is {slot}?"  # the caller's messages stay as they are
    with pytest.raises(ValueError, match="found it 2 times"):
        template.renderer([{"role": "user", "content": [*parts, parts[1]]}])


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        (3, TypeError, "expected a user message or a list of messages, got int"),
        (["{slot}"], TypeError, "message 0 must be a dictionary with a role and a content, got str"),
        ({"role": "user", "content": "{slot}"}, TypeError, "expected a user message or a list of messages, got dict"),
        ([FIRST, {"content": "{slot}"}], TypeError, "the role of message 1 must be a text such as 'user', got None"),
        ([{"role": 3, "content": "{slot}"}], TypeError, "the role of message 0 .* got 3"),
        ([{"role": "user"}], ValueError, "must hold {slot} exactly once, found it 0 times"),
        ([{"role": "user", "content": None}], ValueError, "found it 0 times"),
        ([{"role": "user", "content": "{slot}"}, REPLY], ValueError, "the last message is the assistant's"),
        (
            [{"role": "user", "content": "{slot}", "x": b"y"}],
            TypeError,
            r"\[chat\] the messages must hold what JSON can",
        ),
        ([], ValueError, "found it 0 times"),
        ("", ValueError, "found it 0 times"),
    ],
)
def test_malformed_messages_are_refused_by_place(messages: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        titer.Prompt.from_chat(chat("chatml").owner, messages, target="Sure")


@pytest.mark.parametrize("shape", SHAPES)
def test_an_attack_on_a_conversation_gives_text_that_is_read_as_scored(shape: str) -> None:
    peer = chat(shape).peer
    config = LlamaConfig(
        vocab_size=len(peer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    module = LlamaForCausalLM(config).eval()
    randomise(module, seed=3)
    model = titer.load_model(module, tokenizer=peer)
    messages = [FIRST, REPLY, {"role": "user", "content": "{slot}"}]
    prompt = titer.Prompt.from_chat(model, messages, target="Sure, 12", initial="the x y")
    result = titer.attacks.GCG(num_steps=4, search_width=24, topk=64, seed=1).run(titer.System(model), prompt)
    assert result.loss < result.initial_loss
    ids = torch.tensor([prompt.encode(result.text) + prompt.target_ids])
    with torch.no_grad():
        logits = module(ids).logits[0, -len(prompt.target_ids) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(prompt.target_ids)).item()
    assert loss == pytest.approx(result.loss, abs=1e-4)
    transformers_ids = peer.apply_chat_template(
        filled(messages, result.text), add_generation_prompt=True, return_dict=False
    )
    assert prompt.encode(result.text)[: len(transformers_ids)] == transformers_ids


@pytest.mark.parametrize("shape", SHAPES)
def test_generate_answers_conversations(shape: str) -> None:
    peer = chat(shape).peer
    module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(peer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )
    model = titer.load_model(module.eval(), tokenizer=peer)
    conversations = [[FIRST], [FIRST, REPLY, SECOND]]
    ids = [model.tokenizer.encode(model.chat_template.render_prompt(turns), False) for turns in conversations]

    def answers(prompts: Any) -> list[list[int]]:
        return [answer.ids for answer in titer.generate(model, prompts, max_new_tokens=5)]

    assert answers(conversations) == answers(ids)
    assert answers([FIRST["content"], conversations[1], ids[0]]) == answers([ids[0], ids[1], ids[0]])
    assert titer.generate(model, FIRST["content"], max_new_tokens=5).ids == answers([ids[0]])[0]
    assert titer.generate(model, [FIRST], max_new_tokens=5).ids == answers([ids[0]])[0]
    for wrong, message in [
        ([[FIRST, "Hello"]], "message 1 must be a dictionary"),
        (FIRST, "expected a text, a conversation or a list of prompts, got dict"),
        (None, "got NoneType"),
        ([5, 6], r"prompt 0 must be a text, a conversation or a list of token ids, got 5"),
        ([[5, 6.5]], r"prompt 0 must be .* got \[5, 6.5\]"),
    ]:
        with pytest.raises(TypeError, match=message):
            titer.generate(model, wrong)  # type: ignore[call-overload]


# ---- models without a template


def test_a_base_model_reads_plain_text(tmp_path: Path) -> None:
    model = titer.load_model(write_tiny_llama(tmp_path, chat_template=None))
    prompt = titer.Prompt.from_text(model, "The dose is {slot} and", target=" the", initial="x x")
    result = titer.attacks.GCG(num_steps=2, search_width=8, topk=32).run(titer.System(model), prompt)
    assert prompt.encode(result.text) == model.tokenizer.encode(f"The dose is {result.text} and")
    assert result.template_hash == ""
    with pytest.raises(ValueError, match=r"no chat template; use Prompt\.from_text"):
        titer.Prompt.from_chat(model, "{slot}", target="x")
    with pytest.raises(ValueError, match="no chat template for a conversation"):
        titer.generate(model, [[FIRST]])
