"""Adapters in PEFT's folders, and models with them in their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import titer
from model_cases import CASES, make_module, tokenizer
from tiny_models import CHAT_TEMPLATE, write_tiny_llama
from titer.training import FinetuneSpec, LoraAdapter, finetune, load_adapter, merge, save_model, tuned_model

RECORDS = [{"prompt": "Is rain wet?", "response": "yes"}, {"prompt": "Is fire wet?", "response": "no"}]
IDS = torch.tensor([[1, 5, 9, 30, 7, 100, 42]])
FAMILIES = ["grouped heads, tied", "qwen2", "gemma3", "phi3", "olmo2", "gpt2", "gpt_neox"]


def adapter_of(model: titer.Model, **options: Any) -> LoraAdapter:
    settings = {"lora_rank": 4, "learning_rate": 0.05, "num_epochs": 4, "batch_size": 1} | options
    adapter = finetune(model, [FinetuneSpec(RECORDS, **settings)]).runs[0].adapter
    assert adapter is not None
    return adapter


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.detach() - b.detach()).abs().max() / b.detach().abs().max().clamp_min(1))


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> titer.Model:
    return titer.load_model(tiny_folder)


@pytest.fixture(scope="module")
def adapter(model: titer.Model) -> LoraAdapter:
    return adapter_of(model)


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_peft_loads_ours_and_we_load_theirs(case: str, use_rslora: bool, tmp_path: Path) -> None:
    model = titer.load_model(make_module(**CASES[case]), tokenizer=tokenizer())
    adapter = adapter_of(model, use_rslora=use_rslora)
    merged = merge(model, adapter)
    assert largest_difference(merged(IDS), model(IDS)) > 0.01
    adapter.save(tmp_path / "ours")
    theirs = PeftModel.from_pretrained(make_module(**CASES[case]), str(tmp_path / "ours")).eval()
    assert largest_difference(theirs(IDS).logits, merged(IDS)) < 1e-4
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_adapter(tmp_path / "theirs")
    assert again.base == again.template_hash == ""
    assert torch.equal(merge(model, again)(IDS), merged(IDS))


def test_a_folder_gives_back_what_was_saved(adapter: LoraAdapter, tmp_path: Path) -> None:
    adapter.save(tmp_path / "a")
    again = load_adapter(tmp_path / "a")
    assert again.modules.keys() == adapter.modules.keys()
    for name, factors in adapter.modules.items():
        assert all(torch.equal(a, b) for a, b in zip(factors, again.modules[name], strict=True))
    for name in ("rank", "alpha", "use_rslora", "dropout", "target_modules", "base", "template_hash", "scale"):
        assert getattr(again, name) == getattr(adapter, name)


def test_an_adapter_knows_its_base_and_refuses_another(adapter: LoraAdapter, tmp_path: Path) -> None:
    other = titer.load_model(write_tiny_llama(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match=r"trained on weights of SHA-256 \w{12}\.\.\., this model's is \w{12}\.\.\."):
        merge(other, adapter)


def test_an_adapter_knows_its_chat_template_and_refuses_another(
    model: titer.Model, adapter: LoraAdapter, tmp_path: Path
) -> None:
    assert model.chat_template is not None and adapter.template_hash == model.chat_template.hash
    template = CHAT_TEMPLATE.replace("assistant", "helper")
    other = titer.load_model(write_tiny_llama(tmp_path / "other", chat_template=template))
    assert other.weights_sha256() == model.weights_sha256()
    with pytest.raises(ValueError, match=r"with the chat template \w{12}, this model has \w{12}"):
        merge(other, adapter)
    without = titer.load_model(write_tiny_llama(tmp_path / "without", chat_template=None))
    with pytest.raises(ValueError, match="this model has none"):
        merge(without, adapter)


def test_merging_leaves_the_base_and_shares_what_it_does_not_change(model: titer.Model) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merged = merge(model, adapter_of(model, target_modules=["q_proj"]))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        shared = merged.state_dict()[name].data_ptr() == tensor.data_ptr()
        assert shared == ("q_proj" not in name)


def test_merging_in_bfloat16_rounds_once(tiny_folder: Path) -> None:
    model = titer.load_model(tiny_folder, dtype="bfloat16")
    adapter = adapter_of(model)
    name = "model.layers.0.self_attn.q_proj"
    a, b = adapter.modules[name]
    exact = model.state_dict()[f"{name}.weight"].double() + adapter.scale * (b.double() @ a.double())
    merged = merge(model, adapter).state_dict()[f"{name}.weight"]
    assert merged.dtype == torch.bfloat16
    assert ((merged.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-9).all()


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_loads_what_is_saved(tiny_folder: Path, tmp_path: Path, method: str, dtype: str) -> None:
    model = titer.load_model(tiny_folder, dtype=dtype)
    spec = FinetuneSpec(RECORDS, method=method, learning_rate=0.01, num_epochs=2, lora_rank=4)
    tuned = tuned_model(model, finetune(model, [spec]).runs[0])
    folder = save_model(tuned, tmp_path / "out" / "tuned")
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.dtype == getattr(torch, dtype)
    assert largest_difference(theirs(IDS).logits.float(), tuned(IDS).float()) < (1e-4 if dtype == "float32" else 2e-2)
    again = titer.load_model(folder)
    assert torch.equal(again(IDS), tuned(IDS))
    assert again.chat_template is not None and again.chat_template.hash == tuned.chat_template.hash
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["tuned"]


def test_only_what_belongs_to_a_model_is_copied(model: titer.Model, tmp_path: Path) -> None:
    assert model.path is not None
    base = tmp_path / "base"
    shutil.copytree(model.path, base)
    (tmp_path / "secret").write_text("secret")
    (base / "notes.txt").symlink_to(tmp_path / "secret")
    for name in ("adapter_config.json", "training.json", "pytorch_model.bin.index.json"):
        (base / name).write_text("{}")
    saved = save_model(model, tmp_path / "saved", base=base)
    assert {file.name for file in saved.iterdir()} == {file.name for file in model.path.iterdir()}
    (base / "LICENSE").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="is a symbolic link that leaves the folder"):
        save_model(model, tmp_path / "other", base=base)
    assert not (tmp_path / "other").exists()


def test_a_run_without_a_result_says_why(model: titer.Model) -> None:
    spec = FinetuneSpec(RECORDS, learning_rate=1e300, lora_rank=4)
    with pytest.raises(ValueError, match=r"the run has no result: .*run 0: the result of step 1 is not finite"):
        tuned_model(model, finetune(model, [spec]).runs[0])


def test_an_adapter_without_a_base_fits_the_same_model_in_another_dtype(tiny_folder: Path) -> None:
    adapter = adapter_of(titer.load_model(tiny_folder, dtype="bfloat16"))
    wide = titer.load_model(tiny_folder)
    with pytest.raises(ValueError, match="or clear the adapter's base"):
        merge(wide, adapter)
    adapter.base = ""
    assert merge(wide, adapter).dtype == "float32"


def test_a_model_is_not_saved_over_something(model: titer.Model, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="choose a folder that does not exist"):
        save_model(model, tmp_path)
    bare = titer.load_model(make_module(), tokenizer=tokenizer())
    with pytest.raises(ValueError, match="was not loaded from a folder"):
        save_model(bare, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value != "remove"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, r"'peft_type' is \"IA3\", expected \"LORA\" .*adapter_config"),
        ({"bias": "all"}, r"'bias' is \"all\""),
        ({"use_dora": True}, r"'use_dora' is true, which is not supported"),
        ({"rank_pattern": {"q_proj": 8}}, r"'rank_pattern' is "),
        ({"modules_to_save": ["lm_head"]}, r"'modules_to_save' is "),
        ({"unheard_of": 1}, r"'unheard_of' is 1, which is not supported"),
        ({"init_lora_weights": "pissa"}, r"'init_lora_weights' is \"pissa\", which changes the base, too"),
        ({"init_lora_weights": "olora"}, r"'init_lora_weights' is "),
        ({"r": 0}, r"'r' must be a whole number from 1"),
        ({"r": "remove"}, r"'r' is missing"),
        ({"r": 5}, r"which does not have the rank 5 .*adapter_model"),
        ({"lora_alpha": "x"}, r"'lora_alpha' must be a number"),
        ({"lora_alpha": 0}, r"'lora_alpha' must be above 0"),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(
    adapter: LoraAdapter, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    adapter.save(tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_adapter(tmp_path)


def test_weights_that_do_not_fit_are_refused_by_name(model: titer.Model, adapter: LoraAdapter, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(iter(sorted(weights)))

    def refused(changed: dict[str, torch.Tensor], message: str) -> None:
        save_file(changed, file)
        with pytest.raises(ValueError, match=message):
            merge(model, load_adapter(tmp_path))

    refused({key: value for key, value in weights.items() if key != name}, r"lacks lora_A")
    refused(weights | {"other.weight": torch.zeros(2, 2)}, r"'other.weight' is no factor of a linear layer")
    refused(weights | {name: torch.full_like(weights[name], torch.nan)}, r"holds an infinity or NaN")
    refused(weights | {name: torch.zeros(4, 7)}, r"must have factors of shape")
    moved = {key.replace("layers.0", "layers.9"): value for key, value in weights.items()}
    refused(moved, r"which is no linear layer of this llama model")
    refused({}, r"holds no adapter")


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected the folder of an adapter"):
        load_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "bias": "none"}')
    with pytest.raises(OSError, match=r"adapter_model\.safetensors"):
        load_adapter(tmp_path)


def test_peft_itself_agrees_on_what_a_saved_adapter_of_theirs_means(tmp_path: Path) -> None:
    """One that PEFT made and trained nothing of, its factors B random."""
    module = make_module()
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    peft_model = get_peft_model(module, config)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    peft_model.save_pretrained(tmp_path)
    model = titer.load_model(make_module(), tokenizer=tokenizer())
    assert largest_difference(merge(model, load_adapter(tmp_path))(IDS), peft_model.eval()(IDS).logits) < 1e-4
