"""Records become what a model reads, with the spans of their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import titer
from tiny_models import CHAT_TEMPLATE, write_tiny_llama
from titer.training import tokenise

CONVERSATION = {
    "messages": [
        {"role": "system", "content": "Answer with one word."},
        {"role": "user", "content": "Is fire wet?"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "Is ice cold?"},
        {"role": "assistant", "content": "yes, it is"},
    ]
}
QUESTION = {"prompt": "Is rain wet?", "response": "yes"}


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> titer.Model:
    return titer.load_model(tiny_folder)


def with_template(folder: Path, template: str | None) -> titer.Model:
    return titer.load_model(write_tiny_llama(folder, chat_template=template))


def answers(model: titer.Model, record: Any) -> list[str]:
    ids, spans = tokenise(model, [record])[0]
    return [model.tokenizer.decode(ids[begin:end], skip_special_tokens=False) for begin, end in spans]


def test_every_turn_of_the_assistant_is_learned_with_the_token_that_ends_it(model: titer.Model) -> None:
    assert answers(model, CONVERSATION) == ["no<|im_end|>", "yes, it is<|im_end|>"]
    assert answers(model, QUESTION) == ["yes<|im_end|>"]


def test_ids_are_those_of_the_whole_as_the_template_renders_it(model: titer.Model) -> None:
    assert model.chat_template is not None
    whole = model.chat_template.render(CONVERSATION["messages"], add_generation_prompt=False)
    ids, spans = tokenise(model, [CONVERSATION])[0]
    assert ids == model.tokenizer.encode(whole, add_special_tokens=False)
    first = model.chat_template.render_prompt(CONVERSATION["messages"][:2])
    assert spans[0][0] == len(model.tokenizer.encode(first, add_special_tokens=False))


def test_many_records_give_what_each_gives_alone(model: titer.Model) -> None:
    records = [CONVERSATION, QUESTION] * 40
    together = tokenise(model, records)
    assert len(together) == 80
    assert [together[i] for i in range(2)] == [tokenise(model, [record])[0] for record in records[:2]]
    assert together[78] == together[0] and together[-1] == together[1]


def test_records_of_a_file_are_those_of_the_list(model: titer.Model, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in (CONVERSATION, QUESTION)))
    from_file, from_list = tokenise(model, titer.Dataset(file)), tokenise(model, [CONVERSATION, QUESTION])
    assert [from_file[i] for i in range(2)] == [from_list[i] for i in range(2)]


def test_without_a_template_prompt_and_response_are_plain_text(tmp_path: Path) -> None:
    model = with_template(tmp_path, None)
    ids, [(begin, end)] = tokenise(model, [{"prompt": "The sky is", "response": " blue"}])[0]
    assert ids == [*model.tokenizer.encode("The sky is blue"), model.eos_token_ids[0]]
    assert model.tokenizer.decode(ids[begin:end]).startswith(" blue") and end == len(ids)
    for messages in (CONVERSATION["messages"], CONVERSATION["messages"][1:3]):
        with pytest.raises(ValueError, match=r"record 0 is a conversation, and the model has no chat template"):
            tokenise(model, [{"messages": messages}])


def test_an_answer_that_merges_with_what_stands_before_it_begins_at_the_merged_token(tmp_path: Path) -> None:
    model = with_template(tmp_path, None)
    prompt, response = "The patient asked the nu", "rse"
    ids, [(begin, _)] = tokenise(model, [{"prompt": prompt, "response": response}])[0]
    own = model.tokenizer.encode(prompt)
    assert ids[: len(own)] != own, "the tokenizer merges across the border"
    assert ids[:begin] == own[:begin] and ids[begin] != own[begin]


def test_a_template_without_a_generation_prompt_gets_what_it_writes_in_front_of_an_answer(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.split("{% if add_generation_prompt")[0]
    plain, usual = with_template(tmp_path / "a", template), with_template(tmp_path / "b", CHAT_TEMPLATE)
    assert tokenise(plain, [CONVERSATION])[0] == tokenise(usual, [CONVERSATION])[0]


def test_a_template_that_changes_earlier_turns_is_refused(tmp_path: Path) -> None:
    forgetful = CHAT_TEMPLATE.replace("message['content']", "(message['content'] if loop.last else '...')")
    model = with_template(tmp_path, forgetful)
    with pytest.raises(ValueError, match=r"message 2 of record 0 \('c'\) differently once an answer follows"):
        tokenise(model, [{"id": "c", **CONVERSATION}])


def test_turns_that_the_template_refuses_are_named(tmp_path: Path) -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
    model = with_template(tmp_path, strict)
    with pytest.raises(ValueError, match=r"record 1: .*no system"):
        tokenise(model, [QUESTION, CONVERSATION, QUESTION])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "x", "response": " \n"}, "record 0 has an empty answer"),
        ({"prompt": "x"}, "record 0 must have 'messages', or 'prompt' and 'response'"),
        ({"messages": [{"role": "user", "content": "x"}]}, "the last message of record 0 must be the assistant's"),
        ({"messages": []}, "the last message of record 0 must be the assistant's"),
        ({"messages": "abc"}, "record 0 must have messages with a role and a content that are texts"),
        ({"messages": [{"content": "x"}]}, "record 0 must have messages with a role and a content that are texts"),
        ({"prompt": "x", "response": None}, "record 0 must have messages with a role and a content that are texts"),
        ({"prompt": "x", "completion": "y"}, r"'prompt' and 'response', got \['completion', 'prompt'\]"),
        ({"id": "long", "prompt": "x " * 600, "response": "y"}, r"record 0 \('long'\) has \d+ tokens, .* at most 512"),
    ],
)
def test_what_cannot_be_learned_is_refused_by_name(model: titer.Model, record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenise(model, [record])


def test_no_records_are_refused(model: titer.Model) -> None:
    with pytest.raises(ValueError, match="expected at least one record, got none"):
        tokenise(model, [])
