"""Every family loads from both layouts of its files, shares a module's tensors, and scores as its reference does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import titer
from model_cases import CASES, LONG_ROPE, make_module, pair, random_slots, tokenizer
from test_logits import assert_logits_equal, random_ids
from test_scorer import SHAPES, TOLERANCE, open_prompt
from transformers_oracle import OBJECTIVES, Objective, all_logits

FAMILIES = sorted({config.get("model_type", "llama") for config in CASES.values()})


def test_every_supported_family_has_a_case(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ValueError, match="supported: ") as caught:
        titer.load_model(tmp_path)
    assert sorted(str(caught.value).split("supported: ")[1].split(" (")[0].split(", ")) == FAMILIES


@pytest.mark.parametrize("case", CASES)
def test_the_folder_that_transformers_saves_gives_the_same_model(tmp_path: Path, case: str) -> None:
    pair(case).module.save_pretrained(tmp_path)
    assert_logits_equal(titer.load_model(tmp_path, tokenizer=tokenizer()), pair(case).module, random_ids(2, 40))


def as_transformers_4(config: dict[str, Any]) -> None:
    """Write the rotary settings of a configuration where transformers 4.x looked for them."""
    config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "gemma2":
        del config["layer_types"]
    rope = config.pop("rope_parameters", None)
    if rope is None:
        return
    if config["model_type"] == "gemma3_text":
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    theta, share = {"gpt_neox": ("rotary_emb_base", "rotary_pct")}.get(
        config["model_type"], ("rope_theta", "partial_rotary_factor")
    )
    config[theta] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config[share] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    type_key = "rope_type" if config["model_type"] == "gemma3_text" else "type"  # its files never had the older key
    config["rope_scaling"] = None if kind == "default" else {type_key: kind} | rope


@pytest.mark.parametrize("case", [case for case in CASES if "model_type" in CASES[case]])
def test_the_layout_of_transformers_4_gives_the_same_model(tmp_path: Path, case: str) -> None:
    pair(case).module.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    as_transformers_4(config)
    file.write_text(json.dumps(config))
    # The old layout is read by transformers, too: what it makes of it is what counts.
    module = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    ids = random_ids(2, 40)
    assert_logits_equal(titer.load_model(tmp_path, tokenizer=tokenizer()), module, ids)
    torch.testing.assert_close(all_logits(module, ids), all_logits(pair(case).module, ids))


@pytest.mark.parametrize("case", ["gpt2", "biases", "gpt_neox"])
def test_files_of_the_bare_transformer_leave_the_first_part_of_names_out(tmp_path: Path, case: str) -> None:
    module = pair(case).module
    module.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    prefix = module.base_model_prefix + "."
    save_file({name.removeprefix(prefix): tensor for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    assert_logits_equal(titer.load_model(tmp_path, tokenizer=tokenizer()), module, random_ids(2, 40))


@pytest.mark.parametrize(
    "case", ["biases", "qwen3, biases and windows", "gemma2", "gemma3", "phi3", "olmo2", "gpt2", "gpt_neox"]
)
def test_modules_share_their_tensors_however_they_are_fused(case: str) -> None:
    module = make_module(**CASES[case])
    model = titer.load_model(module, tokenizer=tokenizer())
    assert model.num_parameters == sum(parameter.numel() for parameter in module.parameters())
    ids = random_ids(2, 20)
    for name, parameter in module.named_parameters():
        before = model(ids)
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))
        after = model(ids)
        assert not torch.equal(before, after), name
        with torch.no_grad():
            assert (after - all_logits(module, ids)).abs().max() <= 1e-4 * max(1.0, after.abs().max()), name


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Anything that a configuration of any family may combine."""
    family = draw(st.sampled_from(FAMILIES))
    key_heads = draw(st.sampled_from([1, 2]))
    heads = key_heads * draw(st.sampled_from([1, 3]))
    layers = draw(st.integers(1, 3))
    config: dict[str, Any] = {
        "model_type": family,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "hidden_size": heads * 8,
        "intermediate_size": draw(st.sampled_from([17, 40])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    if family in ("gpt2", "gpt_neox"):
        del config["num_key_value_heads"]
    if family == "gpt2":
        config["n_inner"] = config.pop("intermediate_size")
        config["activation_function"] = draw(st.sampled_from(["gelu", "gelu_new", "silu"]))
        config["scale_attn_weights"] = draw(st.booleans())
        config["scale_attn_by_inverse_layer_idx"] = draw(st.booleans())
    if family == "gpt_neox":
        config["use_parallel_residual"] = draw(st.booleans())
        share = draw(st.sampled_from([0.25, 0.5, 1.0]))
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": share}
    if family in ("llama", "qwen3", "gemma2", "gemma3_text", "olmo2", "gpt_neox"):
        config["attention_bias"] = draw(st.booleans())
    if family in ("qwen3", "gemma2", "gemma3_text"):
        config["head_dim"] = draw(st.sampled_from([4, 8, 12]))
    if family in ("mistral", "phi3", "gemma2", "gemma3_text", "qwen2", "qwen3"):
        config["sliding_window"] = draw(st.sampled_from([1, 3, 8, 20, 4096]))
    if family in ("gemma2", "gemma3_text", "qwen2", "qwen3"):
        config["use_sliding_window"] = True
        config["layer_types"] = draw(
            st.lists(st.sampled_from(["full_attention", "sliding_attention"]), min_size=layers, max_size=layers)
        )
    if family in ("gemma2", "gemma3_text"):
        config["query_pre_attn_scalar"] = draw(st.sampled_from([8, 30]))
        config["final_logit_softcapping"] = draw(st.sampled_from([None, 2.0]))
    if family == "gemma2":
        config["attn_logit_softcapping"] = draw(st.sampled_from([None, 1.0]))
    if family == "phi3" and draw(st.booleans()):
        config["rope_parameters"] = LONG_ROPE
        config["original_max_position_embeddings"] = draw(st.sampled_from([10, 30, 64]))
    return config


@settings(deadline=None, max_examples=60)
@given(
    config=configurations(),
    shape=st.sampled_from(list(SHAPES)),
    objective=st.sampled_from(OBJECTIVES),
    batch_size=st.sampled_from([None, 1, 5]),
    changes=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_reuse_is_exact_on_random_configurations(
    config: dict[str, Any], shape: str, objective: Objective, batch_size: int | None, changes: int, seed: int
) -> None:
    """Losses and gradient of the scorer that shares, packs and starts late are those of whole sequences."""
    model = titer.load_model(make_module(seed, **config), tokenizer=tokenizer())
    prompt = open_prompt(shape)
    slots = random_slots(prompt, 9, min(changes, len(prompt.slot_ids)), seed)
    session = titer.CandidateScorer(model, prompt, batch_size=batch_size)
    reference = titer.ReferenceScorer(model, prompt)
    for base in (slots[0], slots[5]):
        session.rebase(base)
        losses, match = session.score(slots, **objective)
        expected, expected_match = reference.score(slots, **objective)
        assert (losses - expected).abs().max() <= TOLERANCE and torch.equal(match, expected_match)
    gradient = session.token_gradient(slots[1], **objective)
    expected_gradient = reference.token_gradient(slots[1], **objective)
    assert (gradient - expected_gradient).abs().max() <= 1e-4 * max(1.0, expected_gradient.abs().max())
    losses, _ = session.score(slots, **objective)  # after a gradient, the base is that of the gradient
    expected, _ = reference.score(slots, **objective)
    assert (losses - expected).abs().max() <= TOLERANCE
