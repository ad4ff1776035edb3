"""A transformers module becomes a model without a copy and without a change to the module, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import titer
from model_cases import make_module, tokenizer
from transformers_oracle import all_logits


@pytest.fixture
def module() -> PreTrainedModel:
    return make_module(attention_bias=True, tie_word_embeddings=False)


IDS = torch.arange(3, 43).view(2, 20)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_large_module_needs_no_memory() -> None:
    module = make_module(hidden_size=256, vocab_size=65536, num_hidden_layers=1, tie_word_embeddings=False)
    before = resident_bytes()
    model = titer.load_model(module, tokenizer=tokenizer())
    assert model.weight_bytes > 128e6
    assert resident_bytes() - before < 16e6


def test_weights_outlive_the_module(module: PreTrainedModel) -> None:
    expected = all_logits(module, IDS)
    model = titer.load_model(module, tokenizer=tokenizer())
    del module
    torch.testing.assert_close(model(IDS), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("trainable", [True, False])
def test_flags_and_gradients_of_the_caller_stay(module: PreTrainedModel, trainable: bool) -> None:
    module.requires_grad_(trainable)
    model = titer.load_model(module, tokenizer=tokenizer())
    prompt = titer.Prompt.from_text(model.tokenizer, "Tell me {slot} now:", " x x", initial="x x x")
    session = titer.CandidateScorer(model, prompt)
    gradient = session.token_gradient(torch.tensor(prompt.slot_ids))
    losses = session.losses(torch.tensor([prompt.slot_ids]))
    assert all(p.requires_grad == trainable and p.grad is None for p in module.parameters())
    assert not (gradient.requires_grad or losses.requires_grad or model(IDS).requires_grad)


def test_parameters_are_counted_once_where_tied() -> None:
    for tied in (True, False):
        module = make_module(tie_word_embeddings=tied)
        model = titer.load_model(module, tokenizer=tokenizer())
        assert model.num_parameters == sum(p.numel() for p in module.parameters())
        assert model.weight_bytes == 4 * model.num_parameters


def test_weights_of_any_strides_are_used_as_they_are(module: PreTrainedModel) -> None:
    expected = all_logits(module, IDS)
    for name, parameter in module.named_parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.data.t().contiguous().t()
            assert not parameter.is_contiguous(), name
    torch.testing.assert_close(titer.load_model(module, tokenizer=tokenizer())(IDS), expected, rtol=0, atol=1e-4)


def test_end_of_sequence_ids_are_those_that_the_module_generates_with(module: PreTrainedModel) -> None:
    module.generation_config.eos_token_id = [7, 9]
    assert titer.load_model(module, tokenizer=tokenizer()).eos_token_ids == [7, 9]


def test_a_tokenizer_is_needed(module: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="tokenizer="):
        titer.load_model(module)


def test_files_settings_are_refused_for_modules(module: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match=r"module\.to"):
        titer.load_model(module, tokenizer=tokenizer(), dtype="bfloat16")


def test_a_tokenizer_of_another_kind_is_refused_by_name(module: PreTrainedModel) -> None:
    class SlowTokenizer:
        backend_tokenizer = None

    with pytest.raises(TypeError, match="SlowTokenizer"):
        titer.load_model(module, tokenizer=SlowTokenizer())


def add_hook(module: PreTrainedModel) -> None:
    module.model.layers[1].mlp.register_forward_hook(lambda *_: None)


def add_backward_hook(module: PreTrainedModel) -> None:
    module.model.norm.register_full_backward_hook(lambda *_: None)


def wrap_by_peft(module: Any) -> None:
    module.peft_config = {"default": object()}


def quantise(module: Any) -> None:
    module.is_quantized = True


def make_meta(module: PreTrainedModel) -> None:
    module.lm_head.to("meta")


class Int8Parameter(torch.nn.Parameter):
    """Stands for what quantisation libraries put in place of parameters."""


def use_own_parameter_class(module: PreTrainedModel) -> None:
    projection = module.model.layers[0].self_attn.q_proj
    projection.weight = Int8Parameter(projection.weight.data)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (add_hook, r"'model\.layers\.1\.mlp'.*hooks"),
        (add_backward_hook, r"'model\.norm'.*hooks"),
        (wrap_by_peft, "PEFT.*merge"),
        (quantise, "quantised"),
        (make_meta, r"'lm_head\.weight'.*meta"),
        (use_own_parameter_class, r"'model\.layers\.0\.self_attn\.q_proj\.weight'.*Int8Parameter"),
    ],
)
def test_modules_that_compute_something_else_are_refused_by_name(
    module: PreTrainedModel, change: Any, culprit: str
) -> None:
    change(module)
    with pytest.raises(TypeError, match=culprit):
        titer.load_model(module, tokenizer=tokenizer())


def test_a_module_with_replaced_layers_is_refused_by_name(module: PreTrainedModel) -> None:
    """As adapters injected without a wrapper do."""
    attention = module.model.layers[0].self_attn
    attention.q_proj = torch.nn.ModuleDict({"base_layer": attention.q_proj})
    with pytest.raises(ValueError, match=r"'model\.layers\.0\.self_attn\.q_proj\.weight' is missing"):
        titer.load_model(module, tokenizer=tokenizer())


def test_weights_made_under_inference_mode_are_refused_by_name(module: PreTrainedModel) -> None:
    with torch.inference_mode():
        module.model.norm.weight = torch.nn.Parameter(torch.ones(32))
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' was made under inference mode"):
        titer.load_model(module, tokenizer=tokenizer())


def test_mixed_dtypes_are_refused_by_name(module: PreTrainedModel) -> None:
    module.model.layers[1].mlp.up_proj.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' is BFloat16"):
        titer.load_model(module, tokenizer=tokenizer())


def test_a_missing_weight_is_refused_by_name(module: PreTrainedModel) -> None:
    del module.model.layers[1].input_layernorm.weight
    with pytest.raises(ValueError, match=r"'model\.layers\.1\.input_layernorm\.weight' is missing"):
        titer.load_model(module, tokenizer=tokenizer())


def test_an_unknown_family_is_refused_by_name() -> None:
    module = make_module(model_type="starcoder2")
    with pytest.raises(ValueError, match=r"'model_type' is 'starcoder2', which is not supported"):
        titer.load_model(module, tokenizer=tokenizer())
