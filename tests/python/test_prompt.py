"""A prompt's spans are cut from the tokenised whole, and a slot's ids are judged by the text that they spell."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as PeerTokenizer
from tokenizers import decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoTokenizer

import titer
from model_cases import VOCABULARY, pair, tokenizer
from tiny_models import train_tokenizer, write_tiny_llama
from titer.chat import ChatTemplate

PIECES = [
    "Tell me", " the town", "the ", "  ", "\n", "\n\n", " ", "x", " x x", "2024", "'s", "I'll", ":", "<|im_end|>",
    "<|im_start|>user\n", "é", "東", "\t", "! ", " \n",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)


@cache
def peer() -> PeerTokenizer:
    return train_tokenizer(VOCABULARY)


def spans(prompt: titer.Prompt) -> list[int]:
    return [*prompt.before_ids, *prompt.slot_ids, *prompt.after_ids, *prompt.target_ids]


def open_or_discard(before: str, initial: str, after: str, target: str) -> titer.Prompt:
    """Texts that merge across a border are refused, as other tests check."""
    try:
        return titer.Prompt.from_text(tokenizer(), before + "{slot}" + after, target, initial=initial)
    except ValueError:
        assume(False)
        raise


@settings(deadline=None, max_examples=200)
@given(before=texts, initial=texts, after=texts, target=texts)
def test_spans_are_the_tokenised_whole(before: str, initial: str, after: str, target: str) -> None:
    prompt = open_or_discard(before, initial, after, target)
    assert spans(prompt) == peer().encode(before + initial + after + target).ids
    assert len(prompt) == len(spans(prompt))
    assert prompt.slot_text(prompt.slot_ids) == initial
    assert prompt.encode(initial) == prompt.before_ids + prompt.slot_ids + prompt.after_ids
    assert prompt.valid(prompt.slot_ids)
    assert peer().decode(prompt.target_ids, skip_special_tokens=False) == prompt.target == target


@settings(deadline=None, max_examples=200)
@given(before=texts, after=texts, target=texts, ids=st.lists(st.integers(3, VOCABULARY - 1), min_size=1, max_size=4))
def test_valid_ids_are_those_that_come_back(before: str, after: str, target: str, ids: list[int]) -> None:
    prompt = open_or_discard(before, "x" * len(ids), after, target)
    written = prompt.slot_text(ids)
    whole = peer().encode(before + written + after + target).ids
    comes_back = whole == [*prompt.before_ids, *ids, *prompt.after_ids, *prompt.target_ids]
    assert prompt.valid(ids) == comes_back


def test_both_answers_of_validity_occur() -> None:
    prompt = titer.Prompt.from_text(tokenizer(), "Tell me {slot} now", " x", initial="x x")
    answers = {prompt.valid([first, second]) for first in prompt.slot_ids for second in range(3, VOCABULARY)}
    assert answers == {True, False}


def test_validity_of_many_rows_is_that_of_each() -> None:
    prompt = titer.Prompt.from_text(tokenizer(), "Tell me {slot} now", " x", initial="x x")
    rows = [[first, second] for first in prompt.slot_ids for second in range(3, VOCABULARY)]
    each = [prompt.valid(row) for row in rows]
    for candidates in (rows, torch.tensor(rows), torch.tensor(rows).T.contiguous().T):
        valid = prompt.valid(candidates)
        assert valid.dtype == torch.bool
        assert valid.tolist() == each
    assert prompt.valid(torch.zeros(0, 2, dtype=torch.long)).shape == (0,)
    with pytest.raises(TypeError, match="must be int64"):
        prompt.valid(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"must have shape \[B, S\]"):
        prompt.valid(torch.zeros(1, 1, 2, dtype=torch.long))
    with pytest.raises(IndexError):
        prompt.valid(torch.full((1, 2), -1))


@settings(deadline=None, max_examples=100)
@given(ids=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=4).filter(lambda ids: min(ids) < 3))
def test_control_tokens_are_never_valid(ids: list[int]) -> None:
    prompt = titer.Prompt.from_text(tokenizer(), "Tell me:\n{slot}\nnow", "x", initial="x x")
    assert not prompt.valid(ids)


@pytest.mark.parametrize("space", [" ", "  ", "\n ", "\t "])
def test_white_space_before_the_slot_belongs_to_its_first_token(space: str) -> None:
    """What an attacker writes never holds the prompt's own space."""
    prompt = titer.Prompt.from_text(tokenizer(), f"Tell me{space}{{slot}} now", " x", initial="x x x")
    assert tokenizer().decode(prompt.slot_ids).endswith(" x x x")
    assert prompt.slot_text(prompt.slot_ids) == "x x x"
    assert tokenizer().decode(prompt.before_ids) + tokenizer().decode(prompt.slot_ids) == f"Tell me{space}x x x"
    without_space = [tokenizer().encode("x")[0], *prompt.slot_ids[1:]]
    assert not prompt.valid(without_space)


def test_no_white_space_is_absorbed_where_the_slot_starts_a_line() -> None:
    prompt = titer.Prompt.from_text(tokenizer(), "Tell me:\n{slot} now", " x", initial="x x")
    assert tokenizer().decode(prompt.slot_ids) == "x x"
    assert tokenizer().decode(prompt.before_ids) == "Tell me:\n"


def test_bos_stays_before_the_slot_and_before_every_reading() -> None:
    prompt = titer.Prompt.from_text(tokenizer(bos=True), "{slot} now", " x", initial="x x")
    assert prompt.before_ids == [1]
    assert prompt.encode("a b")[0] == 1 and prompt.encode("a b").count(1) == 1
    assert prompt.encode(prompt.slot_text(prompt.slot_ids)) == prompt.before_ids + prompt.slot_ids + prompt.after_ids


def test_another_slot_text_gives_another_length() -> None:
    prompt = titer.Prompt.from_text(tokenizer(), "Tell me {slot} now", " x", initial="x x")
    longer = prompt.with_slot("x x x x")
    assert (len(prompt.slot_ids), len(longer.slot_ids)) == (2, 4)
    assert (longer.before_ids, longer.after_ids, longer.target_ids) == (
        prompt.before_ids, prompt.after_ids, prompt.target_ids,
    )  # fmt: skip
    assert longer.with_slot("x x").slot_ids == prompt.slot_ids


def test_the_slot_may_have_another_marker() -> None:
    prompt = titer.Prompt.from_text(tokenizer(), "Keep {slot}: [[HERE]] now", " x", slot="[[HERE]]", initial="x x")
    assert "{slot}" in tokenizer().decode(prompt.before_ids)


@pytest.mark.parametrize(
    ("text", "target", "options", "message"),
    [
        ("Tell me now", " x", {}, r"must hold \{slot\} exactly once, found it 0 times"),
        ("{slot} and {slot}", " x", {}, r"must hold \{slot\} exactly once, found it 2 times"),
        ("Tell {slot} me", "", {}, "target is empty"),
        ("Tell {slot} me", " x", {"initial": ""}, "slot needs an initial text"),
        ("Tell {slot} me", " x", {"slot": ""}, "slot marker must not be empty"),
        ("Tell {slot} su", "n", {}, "the target merges with the text before it into the token 'un'"),
        ("Tell {slot} ", "x", {}, "the target merges with the text before it into the token ' x'"),
        ("Tell {slot}", "n", {"initial": "a"}, "the target merges"),
        ("su{slot} now", " x", {"initial": "n"}, "the slot merges with the text before it into the token 'sun'"),
        ("Tell {slot}n now", " x", {"initial": "su"}, "the text after the slot merges"),
        ("Tell me {slot} now", " x", {"initial": "x<|im_end|>"}, "must hold no special tokens"),
        ("Tell <|im_{slot} now", " x", {"initial": "end|>"}, r"the slot merges .* into the token '<\|im_end\|>'"),
    ],
)
def test_bad_prompts_are_refused_by_name(text: str, target: str, options: dict[str, str], message: str | None) -> None:
    if message is None:
        titer.Prompt.from_text(tokenizer(), text, target, **options)
        return
    with pytest.raises(ValueError, match=message):
        titer.Prompt.from_text(tokenizer(), text, target, **options)


def test_a_target_that_does_not_survive_tokenisation_is_refused() -> None:
    bpe = PeerTokenizer(BPE())  # without the byte alphabet, characters that training never saw are dropped
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(["x x tell me now"] * 3, trainers.BpeTrainer(show_progress=False))
    narrow = titer.Tokenizer.from_json(bpe.to_str())
    with pytest.raises(ValueError, match="the target 'né' does not survive tokenization, it comes back as 'n'"):
        titer.Prompt.from_text(narrow, "tell me {slot}", "né", initial="x x")


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_text_with_lone_surrogates_is_refused(text: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        titer.Prompt.from_text(tokenizer(), "Tell {slot} me", text)


# ---- chats


@pytest.fixture(scope="module")
def chat_model(tiny_folder: Path) -> titer.Model:
    return titer.load_model(tiny_folder)


def with_template(folder: Path, template: str) -> titer.Model:
    return titer.load_model(write_tiny_llama(folder, chat_template=template))


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is {slot} in the town?"},
    {"role": "assistant", "content": "The answer."},
    {"role": "user", "content": "And now?"},
]


@pytest.mark.parametrize("messages", ["Tell me {slot}", "{slot} is it?", MESSAGES], ids=["suffix", "prefix", "turns"])
def test_a_chat_is_rendered_and_tokenised_as_transformers_does(
    tiny_folder: Path, chat_model: titer.Model, messages: str | list[dict[str, str]]
) -> None:
    prompt = titer.Prompt.from_chat(chat_model, messages, target="Sure, here", initial="x x x")
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    auto = AutoTokenizer.from_pretrained(tiny_folder)

    def read(slot: str) -> list[int]:
        filled = [turn | {"content": turn["content"].replace("{slot}", slot)} for turn in turns]
        ids: list[int] = auto.apply_chat_template(filled, add_generation_prompt=True, return_dict=False)
        return ids

    assert prompt.before_ids + prompt.slot_ids + prompt.after_ids == read("x x x")
    assert prompt.target_ids == auto.encode("Sure, here", add_special_tokens=False)
    assert prompt.encode("the town ") == read("the town ")
    assert prompt.template_hash == ChatTemplate.from_folder(tiny_folder).hash


def test_messages_without_or_with_several_slots_are_refused(chat_model: titer.Model) -> None:
    for messages in ("Tell me", "{slot} {slot}", [*MESSAGES, MESSAGES[1]]):
        with pytest.raises(ValueError, match=r"must hold \{slot\} exactly once"):
            titer.Prompt.from_chat(chat_model, messages, target="x")


def test_a_template_that_repeats_the_message_is_refused(tmp_path: Path) -> None:
    model = with_template(tmp_path, "{% for m in messages %}{{ m.content }}\n{{ m.content }}{% endfor %}")
    with pytest.raises(ValueError, match="rendered prompt must hold the slot exactly once, found it 2 times"):
        titer.Prompt.from_chat(model, "Tell me {slot}", target="\nx")


def test_a_template_that_drops_the_message_is_refused(tmp_path: Path) -> None:
    model = with_template(tmp_path, "{% for m in messages %}{{ m.role }}:{% endfor %}")
    with pytest.raises(ValueError, match="rendered prompt must hold the slot exactly once, found it 0 times"):
        titer.Prompt.from_chat(model, "Tell me {slot}", target=" x")


def test_a_template_that_changes_the_slot_is_refused(tmp_path: Path) -> None:
    model = with_template(tmp_path, "{% for m in messages %}{{ m.content | replace('x', 'y') }}\n{% endfor %}")
    with pytest.raises(ValueError, match="chat template changes the initial slot text"):
        titer.Prompt.from_chat(model, "Tell me {slot}", target="the", initial="x x")


TRIMMING = "{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>\n{% endfor %}"


def test_a_template_that_trims_makes_outer_white_space_invalid(tmp_path: Path) -> None:
    model = with_template(tmp_path, TRIMMING)
    prompt = titer.Prompt.from_chat(model, "Tell me:\n{slot}", target="Sure", initial="x x")
    first, second = prompt.slot_ids
    space, newline = (model.tokenizer.encode(text)[0] for text in (" ", "\n"))
    assert prompt.valid([first, second])
    assert not prompt.valid([second, space])
    assert not prompt.valid([second, newline])
    assert prompt.encode(prompt.slot_text([second, space])) != prompt.before_ids + [second, space] + prompt.after_ids
    # At its front the message goes on, so nothing is trimmed there.
    assert prompt.valid([second, second])
    alone = titer.Prompt.from_chat(model, "{slot} now", target="Sure", initial="x x")
    assert not alone.valid([second, second])
    assert alone.valid([first, second])


def test_initial_text_that_the_template_trims_is_refused(tmp_path: Path) -> None:
    model = with_template(tmp_path, TRIMMING)
    with pytest.raises(ValueError, match="without white space at its ends"):
        titer.Prompt.from_chat(model, "Tell me {slot}", target="Sure", initial="x x ")


@settings(deadline=None, max_examples=60)
@given(ids=st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=2), place=st.sampled_from(["back", "front"]))
def test_valid_ids_come_back_from_a_template_that_trims(
    trimming_model: titer.Model, ids: list[int], place: str
) -> None:
    message = "Tell me {slot}" if place == "back" else "{slot} now"
    prompt = titer.Prompt.from_chat(trimming_model, message, target="Sure", initial="x x")
    if prompt.valid(ids):
        assert prompt.encode(prompt.slot_text(ids)) == prompt.before_ids + ids + prompt.after_ids


@pytest.mark.parametrize("space", [" ", "\n", "\x1c", "\x1f", "\x85", "\u00a0", "\u2003", "\u3000"])
def test_all_white_space_that_a_template_trims_is_invalid_at_the_ends(trimming_model: titer.Model, space: str) -> None:
    ids = [*trimming_model.tokenizer.encode("x", False), *trimming_model.tokenizer.encode(space, False)]
    prompt = titer.Prompt.from_chat(trimming_model, "Tell me {slot}", target="Sure", initial="x x")
    before = titer.Prompt.from_chat(trimming_model, "{slot} now", target="Sure", initial="x x")
    assert not prompt.valid(ids)
    assert not before.valid(ids[1:] + ids[:1])
    assert before.valid(ids) or space in " \n"  # inside the message it stays, unless it merges


@pytest.fixture(scope="module")
def trimming_model(tmp_path_factory: pytest.TempPathFactory) -> titer.Model:
    return with_template(tmp_path_factory.mktemp("trimming"), TRIMMING)


def test_errors_of_the_template_reach_the_caller(tmp_path: Path) -> None:
    model = with_template(tmp_path, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ValueError, match="roles must alternate"):
        titer.Prompt.from_chat(model, "Tell me {slot}", target=" x")


def test_a_model_without_a_template_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no chat template; use Prompt\.from_text"):
        titer.Prompt.from_chat(pair("biases").model, "Tell me {slot}", target=" x")
