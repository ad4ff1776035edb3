"""Stop strings end an answer where its decoded text first holds one, and no token later."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

import titer
from model_cases import CASES, make_module, pair, tokenizer
from scripted_model import PROMPT, scripted_model
from test_generation import QUESTIONS, random_prompts
from tiny_models import train_tokenizer
from transformers_oracle import forget_growth

MARK = "\u2581"
TEXT = " The answer: thé 東京 is 😀\n\nthat the end."


def sentencepiece(metaspace: bool) -> titer.Tokenizer:
    """Characters, some words, and bytes for the rest, in the way of Llama 2 or Mistral."""
    words = [("t", "h"), ("th", "e"), (MARK, "the"), ("e", "n"), (MARK, "en"), ("s", "w")]
    vocab = {"<unk>": 0}
    for token in [f"<0x{byte:02X}>" for byte in range(256)] + [MARK, *"Teanswr:thiod.", *(a + b for a, b in words)]:
        vocab.setdefault(token, len(vocab))
    peer = tokenizers.Tokenizer(models.BPE(vocab, words, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        peer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        space: list[Any] = [decoders.Metaspace(prepend_scheme="first", split=False), decoders.ByteFallback()]
    else:
        peer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
        space = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    peer.decoder = decoders.Sequence(space)
    return titer.Tokenizer.from_json(peer.to_str())


@cache
def tokenizer_of(kind: str) -> titer.Tokenizer:
    return tokenizer() if kind == "byte-level" else sentencepiece(metaspace=kind == "mistral")


KINDS = ["byte-level", "llama2", "mistral"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_ends_with_the_token_that_completes_a_stop_string(kind: str) -> None:
    """Every short part of a text as stop string: across tokens, inside them, at their borders, at the first one."""
    tokenizer = tokenizer_of(kind)
    script = tokenizer.encode(TEXT)
    text = tokenizer.decode(script)
    assert text == (TEXT if kind != "mistral" else TEXT[1:])
    assert len(script) > 20 and any(tokenizer.decode(script[:n]).endswith("\ufffd") for n in range(len(script)))
    model = scripted_model(script, tokenizer)
    prefixes = [tokenizer.decode(script[:n]) for n in range(1, len(script) + 1)]
    inside = 0
    for stop in {text[i:j] for i in range(len(text)) for j in range(i + 1, min(i + 5, len(text)) + 1)}:
        (answer,) = titer.generate(model, [PROMPT], stop=[stop], max_new_tokens=len(script))
        written = next(n for n, prefix in enumerate(prefixes, 1) if stop in prefix)
        assert (answer.finish_reason, answer.stop_string) == ("stop_string", stop)
        assert answer.ids == script[:written]
        assert answer.text == text[: text.index(stop)]
        assert len(answer.log_probs) == written
        inside += not prefixes[written - 1].endswith(stop)
    assert inside > 5  # tokens that hold more than the stop string


@pytest.mark.parametrize("kind", ["llama2", "mistral"])
def test_a_space_that_the_decoder_strips_is_no_text(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    script = [tokenizer.token_to_id(MARK + "the"), tokenizer.token_to_id(MARK + "the")]
    (answer,) = titer.generate(scripted_model(script, tokenizer), [PROMPT], stop=[" the"], max_new_tokens=2)
    assert (answer.text, answer.ids) == ("the", script)
    (answer,) = titer.generate(scripted_model(script, tokenizer), [PROMPT], stop=["the"], max_new_tokens=2)
    assert (answer.text, answer.ids) == ("", script[:1])


def test_the_stop_string_that_is_complete_first_wins() -> None:
    tokenizer = tokenizer_of("byte-level")
    script = tokenizer.encode("Sure, here is the answer")

    def answer(*stop: str) -> tuple[str, str | None]:
        model = scripted_model(script, tokenizer)
        (found,) = titer.generate(model, [PROMPT], stop=stop, max_new_tokens=len(script))
        return found.text, found.stop_string

    assert answer("answer", "here") == ("Sure, ", "here")
    assert answer("here is", "re i") == ("Sure, he", "re i")
    assert answer("is", "here is") == ("Sure, ", "here is")
    assert answer("isn't", "answers") == ("Sure, here is the answer", None)


def test_what_the_prompt_holds_does_not_count() -> None:
    tokenizer = tokenizer_of("byte-level")
    prompt = tokenizer.encode("re?")[-len(PROMPT) :]
    assert len(prompt) == len(PROMPT)
    model = scripted_model(tokenizer.encode("?! x x"), tokenizer)
    for stop in ("re?", "??", "?"):
        (answer,) = titer.generate(model, [prompt], stop=[stop], max_new_tokens=3)
        assert (answer.finish_reason == "stop_string") == (stop == "?")


def test_special_tokens_are_no_text_of_an_answer() -> None:
    tokenizer = tokenizer_of("byte-level")
    start = tokenizer.token_to_id("<|im_start|>")
    assert start is not None
    script = [*tokenizer.encode("he"), start, *tokenizer.encode("re is")]
    (answer,) = titer.generate(scripted_model(script, tokenizer), [PROMPT], stop=["<|im_start|>"], max_new_tokens=4)
    assert answer.finish_reason == "length"
    (answer,) = titer.generate(scripted_model(script, tokenizer), [PROMPT], stop=["here"])
    assert (answer.finish_reason, answer.text) == ("stop_string", "")
    assert start in answer.ids


def test_replacement_characters_match_as_they_are_decoded() -> None:
    """Bytes that are no text are decoded to U+FFFD, but not while the next token may complete the character."""
    tokenizer = tokenizer_of("byte-level")
    first, second = (tokenizer.token_to_id(spelled) for spelled in ("Ã", "©"))  # the bytes of é
    assert first is not None and second is not None
    whole = [first, second, first, *tokenizer.encode("x")]
    (answer,) = titer.generate(scripted_model(whole, tokenizer), [PROMPT], stop=["\ufffd"], max_new_tokens=4)
    assert (answer.text, answer.ids) == ("é", whole)


def test_a_stop_string_among_the_first_tokens_does_not_count() -> None:
    tokenizer = tokenizer_of("byte-level")
    script = tokenizer.encode("x x x x x x")
    model = scripted_model(script, tokenizer)
    assert len(script) == 6
    for minimum in range(6):
        (answer,) = titer.generate(model, [PROMPT], stop=["x"], min_new_tokens=minimum, max_new_tokens=6)
        assert (answer.finish_reason, len(answer.ids)) == ("stop_string", minimum + 1)
        assert answer.text == "x " * minimum
    (answer,) = titer.generate(model, [PROMPT], stop=["x"], min_new_tokens=6, max_new_tokens=6)
    assert (answer.finish_reason, answer.text) == ("length", "x x x x x x")


@cache
def peer_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(320), clean_up_tokenization_spaces=False)


def stopped_by_transformers(
    module: PreTrainedModel, prompt: list[int], stop: list[str], max_new_tokens: int, peer: Any
) -> list[int]:
    forget_growth(module)
    ids = torch.tensor([prompt])
    whole = module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=2,
        stop_strings=stop,
        tokenizer=peer,
    )
    answer: list[int] = whole[0, len(prompt) :].tolist()
    return answer


@pytest.mark.parametrize("case", ["grouped heads, tied", "gemma2", "gpt2"])
def test_ids_are_those_of_transformers(case: str) -> None:
    module, model = pair(case)
    prompts = random_prompts(4, seed=9)
    reasons = []
    for prompt, free in zip(prompts, titer.generate(model, prompts, max_new_tokens=24), strict=True):
        text = free.text.split("\ufffd")
        parts = sorted((part for part in text if len(part) > 2), key=len)[-2:]
        for stop in [[part[1:]] for part in parts] + [["never said", *(part[-2:] for part in parts)]]:
            (answer,) = titer.generate(model, [prompt], max_new_tokens=24, stop=stop)
            assert answer.ids == stopped_by_transformers(module, prompt, stop, 24, peer_tokenizer())
            reasons.append(answer.finish_reason)
    assert reasons.count("stop_string") > 5


def test_smollm2_stops_where_transformers_does(smollm2_folder: Path, smollm2_module: PreTrainedModel) -> None:
    peer = AutoTokenizer.from_pretrained(smollm2_folder)
    model = titer.load_model(smollm2_module, tokenizer=peer)
    stop = [" is", ".", "\n", "e,"]
    answers = titer.generate(model, QUESTIONS[:6], max_new_tokens=16, stop=stop)
    for question, answer in zip(QUESTIONS, answers, strict=False):
        chat = [{"role": "user", "content": question}]
        prompt = peer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert answer.ids == stopped_by_transformers(smollm2_module, prompt, stop, 16, peer)
        assert peer.decode(answer.ids, skip_special_tokens=True).startswith(answer.text + (answer.stop_string or ""))
        assert not any(text in answer.text for text in stop)
    assert sum(answer.finish_reason == "stop_string" for answer in answers) >= 4


@pytest.mark.parametrize("case", [case for case in CASES if case in ("qwen3", "phi3", "gpt_neox")])
def test_rows_end_by_themselves(case: str) -> None:
    """A stop string ends its own row only, and changes no token before."""
    model = pair(case).model
    prompts = random_prompts(5, seed=3)
    free = titer.generate(model, prompts, max_new_tokens=20, temperature=1.0, seed=5)
    stop = next(answer.text[3:5] for answer in free if "\ufffd" not in answer.text[3:5])
    stopped = titer.generate(model, prompts, max_new_tokens=20, temperature=1.0, seed=5, stop=[stop])
    for one, other in zip(free, stopped, strict=True):
        assert (other.finish_reason == "stop_string") == (stop in one.text)
        assert one.ids[: len(other.ids)] == other.ids and one.log_probs[: len(other.ids)] == pytest.approx(
            other.log_probs, abs=1e-5
        )
    assert {answer.finish_reason for answer in stopped} > {"stop_string"}


def test_stop_strings_of_any_size_are_taken() -> None:
    model = titer.load_model(make_module(), tokenizer=tokenizer_of("byte-level"))
    many = [chr(0x4E00 + i) * 50 for i in range(1000)]
    (answer,) = titer.generate(model, [PROMPT], max_new_tokens=4, stop=many)
    assert answer == titer.generate(model, [PROMPT], max_new_tokens=4)[0]
    assert titer.generate(model, [PROMPT], max_new_tokens=4, stop=[]) == [answer]
