"""A slot is valid where `tokenizers` gives its ids back, also where the tokenizer marks the word that starts there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import tokenizers

import titer
from tokenizer_cases import (
    gemma,
    gpt2,
    gpt4o,
    llama2,
    metaspace_always,
    mistral,
    phi3,
    prefix_space,
    qwen2,
    random_texts,
    save_and_load_both,
    strings,
    stripping,
)

Make = Callable[[], tokenizers.Tokenizer]
Pair = tuple[tokenizers.Tokenizer, titer.Tokenizer]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], Pair]:
    @cache
    def load_once(make: Make) -> Pair:
        return save_and_load_both(make(), tmp_path_factory.mktemp(make.__name__))

    return load_once


def by_name(makes: list[Make]) -> Any:
    return pytest.mark.parametrize("make", makes, ids=lambda make: make.__name__)


def ids_between(ids: list[int], prompt: titer.Prompt) -> list[int] | None:
    """The ids of the slot, if those around it are the prompt's."""
    before, after = prompt.before_ids, prompt.after_ids + prompt.target_ids
    slot = ids[len(before) : len(ids) - len(after)]
    return slot if ids == before + slot + after else None


def encode_whole(theirs: tokenizers.Tokenizer, text: str) -> list[int]:
    """What the model reads and answers. A token in front of the text is the post-processor's."""
    ids: list[int] = theirs.encode(text, add_special_tokens=False).ids
    leading = theirs.encode("x").ids[: -len(theirs.encode("x", add_special_tokens=False).ids)]
    return leading + ids


def comes_back(theirs: tokenizers.Tokenizer, prompt: titer.Prompt, before: str, slot: list[int], after: str) -> bool:
    text = prompt.slot_text(slot)
    # U+FFFD stands for bytes that are no text, or for itself
    return "\ufffd" not in text and ids_between(encode_whole(theirs, before + text + after), prompt) == slot


@by_name([gpt2, qwen2, gpt4o, strings, stripping, llama2, mistral, gemma, phi3, metaspace_always])
def test_a_slot_is_valid_where_tokenizers_gives_its_ids_back(make: Make, load: Callable[[Make], Pair]) -> None:
    theirs, ours = load(make)
    rng = random.Random(9)
    sides = ["the patient ", "x\n", "don'", "12", "naïve e", "<s>a <0> ", " ", "\u0301a", "'s 3", "<|user|>\n", "Größe"]
    size = theirs.get_vocab_size()
    num_valid = 0
    for _ in range(120):
        before, after = (rng.choice(sides) + rng.choice(sides) for _ in range(2))
        try:
            prompt = titer.Prompt.from_text(ours, f"a {before}{{slot}}{after}", " yes", initial="the dose")
        except ValueError:  # the slot merges with its surroundings
            continue
        for _ in range(40):
            slot = [i for i in (rng.randrange(size) for _ in range(rng.randrange(1, 5))) if not ours.is_added_token(i)]
            if rng.random() < 0.7:
                slot = [*prompt.slot_ids[:1], *slot]
            valid = prompt.valid(slot)
            assert valid == comes_back(theirs, prompt, f"a {before}", slot, f"{after} yes"), (before, after, slot)
            num_valid += valid
    assert num_valid > 100


# Where a text starts anew, and the tokenizer writes a mark in front of it that the text does not have.
STARTS = {
    "start of the text": ("", " now.", " yes"),
    "start of the text, then the target": ("", "", " yes"),
    "behind a token": ("<s>", " now.</s>", "Yes, it is"),
    "behind a token that takes white space": ("<|user|>\n", "<|end|>\n<|assistant|>\n", "Yes, it is"),
    "inside a text": ("the dose: ", "<|im_end|>", "Größe"),
}
MARKING = [llama2, mistral, phi3, metaspace_always, prefix_space]


def slot_texts(seed: int) -> Iterator[str]:
    words = ["x", "the", " the", "dose", " ", "  a", "東", "\n", "12", "'s", "!"]
    rng = random.Random(seed)
    yield from ("".join(rng.choices(words, k=rng.randrange(1, 5))) for _ in range(300))
    yield from (text for text in random_texts(200, seed) if "\u2581" not in text)  # it stands for a space


@pytest.mark.parametrize("place", STARTS)
@by_name(MARKING)
def test_a_slot_may_stand_where_a_word_is_marked(make: Make, place: str, load: Callable[[Make], Pair]) -> None:
    theirs, ours = load(make)
    before, after, target = STARTS[place]
    prompt = titer.Prompt.from_text(ours, before + "{slot}" + after, target, initial="x the dose")
    whole = prompt.before_ids + prompt.slot_ids + prompt.after_ids + prompt.target_ids
    assert whole == encode_whole(theirs, before + "x the dose" + after + target)
    assert prompt.slot_text(prompt.slot_ids) == "x the dose"
    assert prompt.encode("x the dose") == prompt.before_ids + prompt.slot_ids + prompt.after_ids
    assert prompt.answer_text("x the dose", prompt.target_ids) == prompt.target == target


@pytest.mark.parametrize("place", STARTS)
@by_name(MARKING)
def test_valid_ids_are_those_of_some_text(make: Make, place: str, load: Callable[[Make], Pair]) -> None:
    """Ids that a text gives are valid, and ids are valid only if their text gives them."""
    theirs, ours = load(make)
    before, after, target = STARTS[place]
    prompt = titer.Prompt.from_text(ours, before + "{slot}" + after, target, initial="x the dose")
    found: list[list[int]] = []
    for text in slot_texts(seed=11):
        slot = ids_between(encode_whole(theirs, before + text + after + target), prompt)
        if slot and not any(map(ours.is_added_token, slot)):
            assert prompt.valid(slot), (text, slot)
            found.append(slot)
    assert len(found) > 50

    rng = random.Random(12)
    answers = {True: 0, False: 0}
    for _ in range(1500):
        slot = list(rng.choice(found))
        slot[rng.randrange(len(slot))] = rng.randrange(theirs.get_vocab_size())
        if any(map(ours.is_added_token, slot)):
            continue
        expected = comes_back(theirs, prompt, before, slot, after + target)
        assert prompt.valid(slot) == expected, slot
        answers[expected] += 1
    assert min(answers.values()) > 20


@by_name([gpt2, llama2, mistral, phi3, gemma])
def test_an_answer_inside_a_text_keeps_its_space(make: Make, load: Callable[[Make], Pair]) -> None:
    """It is compared with the target; decoding alone drops the space with these tokenizers."""
    ours = load(make)[1]
    prompt = titer.Prompt.from_text(ours, "x {slot} is", " the dose", initial="x")
    assert prompt.answer_text("a b", prompt.target_ids) == " the dose"
    end = [ours.token_to_id("<|endoftext|>" if make is gpt2 else "</s>")]
    assert prompt.answer_text("a b", prompt.target_ids + end) == " the dose"


@by_name(MARKING)
def test_an_answer_that_starts_a_text_drops_the_mark(make: Make, load: Callable[[Make], Pair]) -> None:
    ours = load(make)[1]
    ids = ours.encode("the dose", False)
    assert ours.bytes_of(ids) == b" the dose"
    assert ours.text_after("", ids) == "the dose"
    assert ours.text_after("x", ids) == " the dose"
    assert ours.text_after("x<s>", ids) == (" the dose" if make in (mistral, prefix_space) else "the dose")


def test_a_target_may_end_with_a_special_token(load: Callable[[Make], Pair]) -> None:
    ours = load(llama2)[1]
    prompt = titer.Prompt.from_text(ours, "x {slot} is", " the dose</s>", initial="x")
    assert prompt.answer_text("x", prompt.target_ids) == prompt.target
    assert prompt.answer_text("x", prompt.target_ids[:-1]) == " the dose"


def test_text_after_names_what_is_wrong(load: Callable[[Make], Pair]) -> None:
    ours = load(llama2)[1]
    with pytest.raises(IndexError, match="-1"):
        ours.text_after("x", [-1])
