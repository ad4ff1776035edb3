"""Logits equal those of transformers, for every configuration of the llama family and every layout of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

import titer
from model_cases import CASES, LLAMA3_ROPE, VOCABULARY, make_module, pair, tokenizer
from transformers_oracle import all_logits, forget_growth

ROPES: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 10000.0},
    {"rope_type": "default", "rope_theta": 5e5},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5},
    {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0},
    LLAMA3_ROPE,
]


def assert_logits_equal(model: titer.Model, module: torch.nn.Module, ids: torch.Tensor) -> None:
    with torch.no_grad():
        expected = all_logits(module, ids)
    difference = (model(ids) - expected).abs().max()
    assert difference <= 1e-4 * max(1.0, expected.abs().max())


def random_ids(batch: int, length: int, seed: int = 0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    key_heads = draw(st.sampled_from([1, 2, 3]))
    heads = key_heads * draw(st.sampled_from([1, 2, 3]))
    config: dict[str, Any] = {
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "hidden_size": heads * draw(st.sampled_from([4, 8])),
        "intermediate_size": draw(st.sampled_from([17, 64])),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": draw(st.sampled_from(ROPES)),
        "max_position_embeddings": draw(st.sampled_from([64, 512])),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-2])),
        "model_type": draw(st.sampled_from(["llama", "mistral"])),
    }
    if draw(st.booleans()):
        config["head_dim"] = draw(st.sampled_from([4, 6, 16]))
    if config["model_type"] == "llama":
        config |= {"attention_bias": draw(st.booleans()), "mlp_bias": draw(st.booleans())}
    else:
        config["sliding_window"] = draw(st.sampled_from([None, 1, 5, 63, 64, 4096]))
    return config


@settings(deadline=None, max_examples=40)
@given(configurations(), st.integers(1, 3), st.integers(1, 64), st.integers(0, 2**32))
def test_logits_equal_transformers_on_random_configurations(
    config: dict[str, Any], batch: int, length: int, seed: int
) -> None:
    module = make_module(seed, **config)
    assert_logits_equal(titer.load_model(module, tokenizer=tokenizer()), module, random_ids(batch, length, seed))


@pytest.mark.parametrize("length", [1, 24, 25, 90])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers_for_every_case(case: str, length: int) -> None:
    assert_logits_equal(pair(case).model, pair(case).module, random_ids(2, length))


def test_no_sequences_have_no_logits() -> None:
    assert pair("biases").model(torch.empty(0, 5, dtype=torch.int64)).shape == (0, 5, VOCABULARY)


def test_scaled_rope_changes_the_logits() -> None:
    """The tests above would not notice if both sides took every rope for the default one."""
    ids = random_ids(1, 60)
    logits = [all_logits(make_module(rope_parameters=rope, max_position_embeddings=64), ids) for rope in ROPES[:3]]
    logits.append(all_logits(make_module(rope_parameters=ROPES[3], max_position_embeddings=32), ids))
    logits.append(all_logits(make_module(rope_parameters=ROPES[4], max_position_embeddings=64), ids))
    for i, one in enumerate(logits):
        assert all((one - other).abs().max() > 1e-2 for other in logits[:i])


def rewrite_as_transformers_4(folder: Path, type_key: str) -> None:
    """Turn config.json into what transformers 4.x writes."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {type_key: kind} | rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.44.0"
    file.write_text(json.dumps(config))


@pytest.mark.parametrize("layout", ["4.x", "4.x, before rope_type", "5.x"])
@pytest.mark.parametrize("rope", ROPES[1:], ids=lambda rope: rope["rope_type"])
def test_both_layouts_of_config_json_give_the_same_model(tmp_path: Path, rope: dict[str, Any], layout: str) -> None:
    module = make_module(rope_parameters=rope, max_position_embeddings=48, tie_word_embeddings=False)
    module.save_pretrained(tmp_path)
    if layout != "5.x":
        rewrite_as_transformers_4(tmp_path, "type" if "before" in layout else "rope_type")
    length = 60 if rope["rope_type"] == "dynamic" else 48
    assert_logits_equal(titer.load_model(tmp_path, tokenizer=tokenizer()), module, random_ids(2, length))


def test_keys_that_are_left_out_take_the_defaults_of_transformers(tmp_path: Path) -> None:
    module = make_module(hidden_size=32, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False)
    module.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for key in ("num_key_value_heads", "head_dim", "rope_parameters", "attention_bias", "mlp_bias", "rms_norm_eps",
                "tie_word_embeddings", "hidden_act", "max_position_embeddings", "dtype"):  # fmt: skip
        del config[key]
    file.write_text(json.dumps(config))
    assert_logits_equal(titer.load_model(tmp_path, tokenizer=tokenizer()), module, random_ids(2, 30))


def test_mistral_without_a_stated_window_has_the_window_of_transformers(tmp_path: Path) -> None:
    module = make_module(model_type="mistral", max_position_embeddings=8192, sliding_window=4096, num_hidden_layers=1,
                         hidden_size=4, num_attention_heads=1, num_key_value_heads=1, intermediate_size=4)  # fmt: skip
    module.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["sliding_window"]
    file.write_text(json.dumps(config))
    ids = random_ids(1, 4200)
    model = titer.load_model(tmp_path, tokenizer=tokenizer())
    assert_logits_equal(model, AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa"), ids)
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % VOCABULARY
    same = (model(ids) == model(changed)).all(-1)[0]
    assert not same[4095] and same[4096:].all()


def test_sharded_weights_give_the_same_model(tmp_path: Path) -> None:
    module = pair("biases").module
    module.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    assert_logits_equal(titer.load_model(tmp_path, tokenizer=tokenizer()), module, random_ids(2, 40))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_converts_and_is_kept_by_default(tmp_path: Path, stored: torch.dtype) -> None:
    make_module().to(stored).save_pretrained(tmp_path)
    ids = random_ids(2, 30)
    model = titer.load_model(tmp_path, tokenizer=tokenizer())
    assert model(ids).dtype == stored
    assert f"torch.{model.dtype}" == str(stored)
    assert titer.load_model(tmp_path, tokenizer=tokenizer(), dtype=model.dtype).dtype == model.dtype
    wide = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert_logits_equal(titer.load_model(tmp_path, tokenizer=tokenizer(), dtype="float32"), wide, ids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errs_no_more_than_transformers(dtype: torch.dtype) -> None:
    narrow = make_module(seed=3, num_hidden_layers=3).to(dtype)
    wide = make_module(seed=3, num_hidden_layers=3).to(dtype).to(torch.float32)
    ids = random_ids(4, 60)
    with torch.no_grad():
        exact = all_logits(wide, ids)
        theirs = (all_logits(narrow, ids).float() - exact).abs()
    ours = (titer.load_model(narrow, tokenizer=tokenizer())(ids).float() - exact).abs()
    assert ours.mean() <= 1.25 * theirs.mean()
    assert ours.max() <= 2 * theirs.max()


def test_float64_agrees_with_transformers_far_below_float32(tmp_path: Path) -> None:
    module = make_module(seed=4)
    ids = random_ids(2, 40)
    module.save_pretrained(tmp_path)
    logits = titer.load_model(tmp_path, tokenizer=tokenizer(), dtype="float64")(ids)
    with torch.no_grad():
        expected = all_logits(module.double(), ids)
    assert logits.dtype == torch.float64
    # Both normalise in float32, transformers in another order.
    assert (logits - expected).abs().max() <= 1e-5


TEXTS = [
    "The Great Barrier Reef, off the coast of Queensland, is the world's largest coral reef system.",
    "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "<|im_start|>user\nThe capital of France?<|im_end|>\n<|im_start|>assistant\nThe capital is Paris.<|im_end|>\n",
    "Ünïcode — naïve café, 東京, 12345, 3.14159; and\n\n\ttabs.",
]


@pytest.mark.parametrize("source", ["folder", "module"])
def test_smollm2_logits_equal_transformers_on_real_text(
    smollm2_folder: Path, smollm2_module: torch.nn.Module, source: str
) -> None:
    if source == "folder":
        model = titer.load_model(smollm2_folder, dtype="float32")
    else:
        model = titer.load_model(smollm2_module, tokenizer=smollm2_folder / "tokenizer.json")
    for text in TEXTS:
        assert_logits_equal(model, smollm2_module, torch.tensor([model.tokenizer.encode(text)]))


def test_dynamic_rope_does_not_depend_on_earlier_passes() -> None:
    module = make_module(**CASES["dynamic rope beyond its context"])
    model = titer.load_model(module, tokenizer=tokenizer())
    ids = random_ids(1, 40)
    before = model(ids)
    model(random_ids(1, 200))
    assert torch.equal(before, model(ids))
    forget_growth(module)
