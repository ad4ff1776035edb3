"""A converted GGUF file is the model it was made from, or it is refused by name."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tiny_gemma import SPACE, sentencepiece_ids, tokenizer_metadata, write_tiny_gemma
from tiny_gguf import Tensors, write_gguf
from tiny_models import train_tokenizer, write_tiny_llama
from titer.models.gguf_conversion import convert_gguf
from titer.models.gguf_tokenizer import read_tokenizer

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def convert(source: Path, folder: Path) -> Path:
    folder.mkdir()
    convert_gguf(source, folder, provenance={"file": source.name})
    return folder


def logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        output: torch.Tensor = model(torch.arange(3, 60)[None]).logits
    return output


@pytest.mark.parametrize(
    "config",
    [
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": False, "unused_rows": 7},
        {"head_dim": 16},
        {"attention_bias": True, "mlp_bias": True},
    ],
    ids=lambda config: ",".join(config),
)
def test_converted_model_gives_the_same_logits(tmp_path: Path, config: dict[str, Any]) -> None:
    # bfloat16 weights survive float32 GGUF tensors unchanged, so the logits are equal to the last bit.
    original = write_tiny_llama(tmp_path / "original", dtype=torch.bfloat16, **config)
    converted = convert(write_gguf(original, tmp_path / "model.gguf"), tmp_path / "converted")
    assert torch.equal(logits(converted), logits(original))


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({}, {}),
        ({"num_key_value_heads": 4, "tie_word_embeddings": False, "attention_bias": True}, {}),
        ({"final_logit_softcapping": 2.0}, {"gemma3.final_logit_softcapping": 2.0}),
        (
            {"rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }},
            {
                "gemma3.rope.scaling.type": "linear",
                "gemma3.rope.scaling.factor": 8.0,
                "gemma3.rope.freq_base_swa": 100.0,
            },
        ),
        (
            {"layer_types": ["sliding_attention", "full_attention"] * 3 + ["sliding_attention"]},
            {"gemma3.attention.sliding_window_pattern": 2},
        ),
        ({"num_hidden_layers": 62, "query_pre_attn_scalar": 8}, {}),
    ],
    ids=["plain", "untied,biases", "soft cap", "rope", "period", "27b"],
)  # fmt: skip
def test_converted_gemma3_gives_the_same_logits(
    tmp_path: Path, config: dict[str, Any], keys: dict[str, int | float | str]
) -> None:
    original = write_tiny_gemma(tmp_path / "original", **config)
    converted = convert(write_gguf(original, tmp_path / "model.gguf", keys=keys), tmp_path / "converted")
    assert torch.equal(logits(converted), logits(original))


def test_quantised_tensors_are_dequantised(tmp_path: Path) -> None:
    original = write_tiny_llama(tmp_path / "original", dtype=torch.bfloat16)
    quantised = write_gguf(original, tmp_path / "model.gguf", matrices=GGMLQuantizationType.Q8_0)
    converted = convert(quantised, tmp_path / "converted")
    difference = (logits(converted) - logits(original)).abs().mean()
    assert 0.0 < difference < 0.02 * logits(original).std()
    assert json.loads((converted / "titer.json").read_text())["tensor_types"] == ["F32", "Q8_0"]


def test_llama3_rope_is_recovered_from_its_factors(tmp_path: Path) -> None:
    original = write_tiny_llama(tmp_path / "original", dtype=torch.bfloat16, head_dim=64, rope_parameters=LLAMA3_ROPE)
    rotary = AutoModelForCausalLM.from_pretrained(original).model.rotary_emb
    plain = 500000.0 ** -(np.arange(0, 64, 2) / 64)
    factors = (plain / rotary.inv_freq.double().numpy()).astype(np.float32)

    def add_factors(tensors: Tensors) -> None:
        tensors["rope_freqs.weight"] = factors

    converted = convert(write_gguf(original, tmp_path / "model.gguf", change=add_factors), tmp_path / "converted")
    torch.testing.assert_close(logits(converted), logits(original), rtol=0, atol=1e-5)
    scaling = json.loads((converted / "config.json").read_text())["rope_scaling"]
    assert scaling | {"rope_theta": 500000.0, "factor": 32.0} == LLAMA3_ROPE
    assert scaling["factor"] == pytest.approx(32.0)


def test_converted_tokenizer_is_the_original(tmp_path: Path) -> None:
    original = write_tiny_llama(tmp_path / "original", pre_tokenizer="digits")
    source = write_gguf(original, tmp_path / "model.gguf", pre="smollm")
    converted = AutoTokenizer.from_pretrained(convert(source, tmp_path / "converted"))
    expected = AutoTokenizer.from_pretrained(original)
    text = "<|im_start|>user\nIn 2024 the x isn't  15 °C\t<|im_end|>"
    assert converted(text).input_ids == expected(text).input_ids
    assert converted.decode(converted(text).input_ids, skip_special_tokens=False) == text
    assert converted.special_tokens_map.items() >= {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}.items()
    assert converted.chat_template == expected.chat_template
    assert "2024" in converted.get_vocab()
    assert converted.tokenize("2024") == ["2", "0", "2", "4"]


DIGITS = train_tokenizer(320, pre_tokenizer="digits")


def metadata_of(tokenizer: Tokenizer, pre: str) -> dict[str, Any]:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token.startswith("<|") else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
    }


PIECES = ["2024", "  12", " ", "x", "isn't", "\n", "<|im_end|>", "٣٤", "é"]
SMOLLM = read_tokenizer(metadata_of(DIGITS, "smollm"), origin="test").tokenizer


@settings(deadline=None)  # timing decides no test
@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_converted_tokenizer_encodes_any_text_as_the_original(text: str) -> None:
    assert SMOLLM.encode(text).ids == DIGITS.encode(text).ids


def test_no_more_added_tokens_than_are_searched_quickly() -> None:
    tokens = [f"{index:x}" for index in range(70_000)]
    vocabulary = {"tokens": tokens, "token_type": [3] * len(tokens), "merges": ["1 0"]}
    metadata = metadata_of(DIGITS, "smollm") | {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
    with pytest.raises(ValueError, match="70000 control and user-defined tokens, more than the 65536"):
        read_tokenizer(metadata, origin="test")


def test_bos_is_added_where_the_file_says_so() -> None:
    metadata = metadata_of(DIGITS, "smollm") | {"tokenizer.ggml.add_bos_token": True}
    tokenizer = read_tokenizer(metadata, origin="test").tokenizer
    assert tokenizer.encode("x").ids == [1, *DIGITS.encode("x").ids]
    assert tokenizer.encode("x", add_special_tokens=False).ids == DIGITS.encode("x").ids


def test_llama3_words_hold_up_to_three_digits() -> None:
    tokenizer = read_tokenizer(metadata_of(DIGITS, "llama-bpe"), origin="test").tokenizer
    assert tokenizer.pre_tokenizer is not None
    words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("I'M 12345 years\n\nold")]
    assert words == ["I", "'M", "Ġ", "123", "45", "Ġyears", "ĊĊ", "old"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "bert"}, r"tokenizer\.ggml\.model is 'bert'; supported: 'gpt2'.*'llama'"),
        ({"tokenizer.ggml.pre": "qwen-99"}, r"tokenizer\.ggml\.pre is 'qwen-99'.*supported: gpt-2, llama-bpe, smollm"),
        ({"tokenizer.ggml.pre": None}, r"tokenizer\.ggml\.pre is None"),
        ({"tokenizer.ggml.merges": []}, "merges is missing"),
        ({"tokenizer.ggml.merges": ["a zz"]}, "merges do not fit"),
        ({"tokenizer.ggml.tokens": ["a"] * 320}, "319 tokens occur twice"),
        ({"tokenizer.ggml.token_type": [1]}, "320 tokens but 1 token types"),
        ({"tokenizer.ggml.token_type": [6] * 320}, r"token types \[6\]"),
        ({"tokenizer.ggml.bos_token_id": 320}, "bos_token_id is 320"),
        ({"tokenizer.ggml.add_space_prefix": True}, "add_space_prefix"),
        ({"tokenizer.ggml.add_eos_token": True}, "add_eos_token"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_unknown_tokenizer_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_tokenizer(metadata_of(DIGITS, "smollm") | change, origin="test.gguf")


GEMMA = read_tokenizer(tokenizer_metadata(), origin="test")
GEMMA_PIECES = [
    "hahaha",
    "the ",
    "  ",
    "    ",
    "\n",
    "\n\n",
    SPACE,
    "<td>",
    "<0x41>",
    "<bos>",
    "\t",
    "漢",
    "😀",
    "é",
    "e\u0301",
]


@settings(deadline=None)  # timing decides no test
@given(st.text() | st.lists(st.sampled_from(GEMMA_PIECES)).map("".join))
def test_gemma_tokenizer_encodes_any_text_as_sentencepiece(text: str) -> None:
    # SentencePiece takes a longer run of spaces than the longest token from the left; `tokenizers` halves it.
    text = re.sub(f"[ {SPACE}]{{6,}}", "     ", text)
    ids = GEMMA.tokenizer.encode(text).ids
    assert ids == sentencepiece_ids(text)
    assert GEMMA.tokenizer.decode(ids, skip_special_tokens=False) == "<bos>" + text.replace(SPACE, " ")


def test_gemma_tokenizer_is_what_transformers_makes_of_the_file(tmp_path: Path) -> None:
    source = write_gguf(write_tiny_gemma(tmp_path / "original"), tmp_path / "model.gguf")
    converted = AutoTokenizer.from_pretrained(convert(source, tmp_path / "converted"))
    expected = AutoTokenizer.from_pretrained(tmp_path, gguf_file=source.name)
    draw = random.Random(0)
    texts = ["".join(draw.choices(GEMMA_PIECES, k=draw.randint(0, 12))) for _ in range(500)]
    assert converted(texts).input_ids == expected(texts).input_ids
    assert converted.special_tokens_map.items() >= {"bos_token": "<bos>", "eos_token": "<eos>"}.items()
    assert converted.pad_token == "<pad>"


def test_gemma_chat_model_ends_its_turn_too() -> None:
    end_of_turn = GEMMA.tokenizer.token_to_id("<end_of_turn>")
    assert GEMMA.end_ids == [1]
    chat = read_tokenizer(tokenizer_metadata() | {"tokenizer.chat_template": "{{ '<end_of_turn>' }}"}, origin="test")
    assert chat.end_ids == [1, end_of_turn]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.add_space_prefix": True}, "add_space_prefix is true or missing"),
        ({"tokenizer.ggml.add_space_prefix": None}, "add_space_prefix is true or missing"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"tokenizer.ggml.precompiled_charsmap": [1]}, "precompiled_charsmap"),
        ({"tokenizer.ggml.scores": None}, r"scores is missing"),
        ({"tokenizer.ggml.scores": [0.0]}, "tokens but 1 scores"),
        ({"tokenizer.ggml.scores": [0.0] * len(GEMMA.tokenizer.get_vocab())}, "must fall with the token id"),
        ({"tokenizer.ggml.token_type": [1] * len(GEMMA.tokenizer.get_vocab())}, "256 byte tokens are missing.*<0x00>"),
        ({"tokenizer.ggml.token_type": [5] * len(GEMMA.tokenizer.get_vocab())}, r"token types \[5\]"),
        ({"tokenizer.ggml.unknown_token_id": None}, "unknown_token_id is missing"),
        ({"tokenizer.ggml.unknown_token_id": 10**6}, "unknown_token_id is 1000000"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_unknown_sentencepiece_tokenizer_is_refused(change: dict[str, Any], message: str) -> None:
    metadata = tokenizer_metadata() | change
    with pytest.raises(ValueError, match=message):
        read_tokenizer({key: value for key, value in metadata.items() if value is not None}, origin="test.gguf")


def remove(name: str) -> Any:
    return lambda tensors: tensors.pop(name)


def put(name: str, values: Any) -> Any:
    return lambda tensors: tensors.update({name: np.asarray(values, dtype=np.float32)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "mamba"}, r"general\.architecture is 'mamba'"),
        ({"change": remove("blk.1.ffn_up.weight")}, r"1 tensors are missing.*layers\.1\.mlp\.up_proj"),
        ({"change": remove("token_embd.weight")}, r"token_embd\.weight is missing"),
        ({"change": put("blk.0.ssm_a.weight", [1.0])}, r"blk\.0\.ssm_a\.weight' has no place"),
        ({"change": put("blk.0.attn_q.weight", np.zeros((16, 32)))}, r"attn_q\.weight' of shape \[16, 32\]"),
        ({"change": put("blk.7.attn_norm.weight", np.zeros(32))}, r"blk\.7\.attn_norm\.weight' .* does not fit"),
        ({"change": put("output_norm.weight", [np.nan] * 32)}, "not finite"),
        ({"change": put("rope_freqs.weight", [1.0, 2.0, 3.0, 4.0])}, "llama-3 factors"),
        ({"keys": {"llama.rope.scaling.type": "yarn"}}, "'yarn'"),
        ({"keys": {"llama.rope.dimension_count": 4}}, "rotary, key and value dimensions differ"),
        ({"keys": {"llama.expert_count": 8}}, "mixtures of experts"),
        ({"keys": {"split.count": 2}}, "split over 2 files"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unknown_model_is_refused(tmp_path: Path, tiny_folder: Path, options: dict[str, Any], message: str) -> None:
    source = write_gguf(tiny_folder, tmp_path / "model.gguf", **options)
    with pytest.raises(ValueError, match=message) as error:
        convert(source, tmp_path / "converted")
    assert "model.gguf" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"change": remove("blk.1.attn_q_norm.weight")}, r"1 tensors are missing.*layers\.1\.self_attn\.q_norm"),
        ({"change": put("blk.0.attn_k_norm.weight", np.zeros(32))}, r"attn_k_norm\.weight' of shape \[32\]"),
        ({"change": put("rope_freqs.weight", np.ones(8))}, r"rope_freqs\.weight' has no place in a gemma3 model"),
        ({"keys": {"gemma3.rope.scaling.type": "yarn"}}, "'yarn'"),
        ({"keys": {"gemma3.attention.scale": 0.5}}, r"gemma3\.attention\.scale' is not known here"),
        ({"keys": {"gemma3.attention.sliding_window_pattern": 0}}, "sliding_window_pattern is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unknown_gemma3_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = write_gguf(write_tiny_gemma(tmp_path / "original"), tmp_path / "model.gguf", **options)
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "converted")


def test_damaged_file_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    whole = write_gguf(tiny_folder, tmp_path / "model.gguf").read_bytes()
    for size in (4, 100, len(whole) // 2, len(whole) - 1):
        damaged = tmp_path / f"{size}.gguf"
        damaged.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged"):
            convert(damaged, tmp_path / str(size))
    text = tmp_path / "text.gguf"
    text.write_text("<html>")
    with pytest.raises(ValueError, match="not a GGUF file"):
        convert(text, tmp_path / "text")


def test_smollm2_is_the_model_it_claims_to_be(smollm2_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    answer = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
    # Spaces before a number are one token only where digits are split off first.
    assert tokenizer.tokenize("in 2024 a  12") == ["in", "Ġ", "2", "0", "2", "4", "Ġa", "ĠĠ", "1", "2"]
    assert tokenizer("<|im_start|><|im_end|><|endoftext|><repo_name>").input_ids == [1, 2, 0, 3]


def test_gemma3_is_the_model_it_claims_to_be(gemma3_folder: Path, gemma3_module: PreTrainedModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gemma3_folder)
    ids = tokenizer("def add(a, b):\n    return", return_tensors="pt").input_ids
    answer = gemma3_module.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(answer) == " a + b\n\n"
    assert tokenizer.tokenize("in 2024 a   b\n\n🫩") == [
        "in", "▁", "2", "0", "2", "4", "▁a", "▁▁▁", "b", "\n\n", "<0xF0>", "<0x9F>", "<0xAB>", "<0xA9>",
    ]  # fmt: skip
    assert tokenizer("<eos><start_of_turn>").input_ids == [2, 1, 105]
    assert gemma3_module.config.layer_types.count("full_attention") == 3
