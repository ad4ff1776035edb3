"""Folders that are damaged, hostile or ask for something unsupported are refused, and the message names the culprit."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import titer
from tiny_models import write_tiny_llama

Change = Callable[[Path], None]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def refused(folder: Path, error: type[Exception], message: str, **options: Any) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}
    with pytest.raises(error, match=message):
        titer.load_model(folder, **options)
    assert before == ({path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {})


def edit(folder: Path, name: str = "config.json", **changes: Any) -> None:
    content = json.loads((folder / name).read_text())
    for key, value in changes.items():
        if value is ...:
            content.pop(key)
        else:
            content[key] = value
    (folder / name).write_text(json.dumps(content))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    change(weights)
    save_file(weights, folder / "model.safetensors")


def edit_header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    written = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(written)) + written + content[8 + length :])


# ---- files


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    refused(tmp_path / "none", FileNotFoundError, r"expected a model folder or a \.gguf file.*none")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_not_found(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, FileNotFoundError, name)


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, ValueError, r"expected model\.safetensors or model\.safetensors\.index\.json, .*neither.*model")


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.ones(2)}, folder / "pytorch_model.bin")
    refused(folder, ValueError, "pickle files are not read")


@pytest.mark.parametrize("kept", [0, 4, 7, 8, 100, -1, -5000])
def test_truncated_weights_are_refused(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:kept])
    refused(folder, ValueError, r"(truncated|empty).*model\.safetensors")


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 2**32, 0])
def test_a_header_length_that_lies_is_refused(folder: Path, length: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    refused(folder, ValueError, r"\[safetensors\] .*model\.safetensors")


def test_the_message_says_how_long_header_and_file_are(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 2**60) + b"{}" * 402)
    refused(folder, ValueError, f"header says {2**60} bytes, the file has 812; it is truncated or not safetensors")


Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def overlap(header: dict[str, Any]) -> None:
    names = [name for name in header if name != "__metadata__"]
    first, second = sorted(names, key=lambda name: header[name]["data_offsets"])[:2]
    header[second]["shape"], header[second]["dtype"] = header[first]["shape"], header[first]["dtype"]
    header[second]["data_offsets"] = header[first]["data_offsets"]


def reverse_offsets(header: dict[str, Any]) -> None:
    header[Q_PROJ]["data_offsets"].reverse()


def point_outside(header: dict[str, Any]) -> None:
    begin, end = header[Q_PROJ]["data_offsets"]
    header[Q_PROJ]["data_offsets"] = [begin + 2**40, end + 2**40]


def overflow(header: dict[str, Any]) -> None:
    header[Q_PROJ]["shape"] = [2**32, 2**32]


def negative(header: dict[str, Any]) -> None:
    header[Q_PROJ]["shape"] = [-1, 32]


def unknown_dtype(header: dict[str, Any]) -> None:
    header[Q_PROJ]["dtype"] = "F128"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (overlap, "overlap"),
        (reverse_offsets, f"{Q_PROJ}.*data_offsets"),
        (point_outside, "hole"),
        (overflow, f"{Q_PROJ}.*2\\^63"),
        (negative, f"{Q_PROJ}.*shape"),
        (unknown_dtype, f"{Q_PROJ}.*F128"),
    ],
)
def test_a_header_that_lies_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    edit_header(folder, change)
    refused(folder, ValueError, f"(?s)\\[safetensors\\].*{message}.*model.safetensors")


def drop_weight(weights: dict[str, torch.Tensor]) -> None:
    del weights[Q_PROJ]


def transpose_weight(weights: dict[str, torch.Tensor]) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name].t().contiguous()


def use_integers(weights: dict[str, torch.Tensor]) -> None:
    weights[Q_PROJ] = weights[Q_PROJ].to(torch.int8)


def mix_dtypes(weights: dict[str, torch.Tensor]) -> None:
    weights[Q_PROJ] = weights[Q_PROJ].to(torch.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_weight, f"weight '{Q_PROJ}' is missing"),
        (transpose_weight, r"'model\.layers\.1\.mlp\.down_proj\.weight' must have shape \[32, 64\], got \[64, 32\]"),
        (use_integers, f"'{Q_PROJ}' has dtype I8"),
        (mix_dtypes, f"'{Q_PROJ}' is Half"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    edit_weights(folder, change)
    refused(folder, ValueError, message)


def test_a_config_that_asks_for_more_weights_is_refused_by_name(folder: Path) -> None:
    edit(folder, attention_bias=True)
    refused(folder, ValueError, r"q_proj\.bias' is missing")
    edit(folder, attention_bias=False, num_hidden_layers=3)
    refused(folder, ValueError, r"'model\.layers\.2\.input_layernorm\.weight' is missing")
    edit(folder, num_hidden_layers=2, vocab_size=321)
    refused(folder, ValueError, r"'model\.embed_tokens\.weight' must have shape \[321, 32\], got \[320, 32\]")


# ---- shards


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The tiny model in two files."""
    folder = write_tiny_llama(tmp_path / "sharded")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    titer.load_model(folder)
    return folder


def test_a_missing_shard_is_not_found(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refused(sharded, FileNotFoundError, "model-00002-of-00002")


def test_an_index_that_names_the_wrong_shard_is_refused(sharded: Path) -> None:
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"
    other = json.loads(
        json.dumps(index).replace('"model.norm.weight": "model-00001', '"model.norm.weight": "model-00002')
    )
    messages = []
    for one in (index, other):
        (sharded / "model.safetensors.index.json").write_text(json.dumps(one))
        try:
            titer.load_model(sharded)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) == 1 and "'model.norm.weight'" in messages[0].replace('"', "'") and "shard" in messages[0]


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "", "..", "a/b.safetensors", 3])
def test_shards_outside_the_folder_are_refused(sharded: Path, name: Any) -> None:
    shutil.copy(sharded / "model-00001-of-00002.safetensors", sharded.parent / "outside.safetensors")
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.norm.weight"] = name
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(sharded, ValueError, r"plain name of a file|must be the name of a file")


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere.safetensors")
    refused(folder, ValueError, "symbolic link that leaves the folder")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": 3}', "{", '{"weight_map": {"a": "b"'])
def test_a_malformed_index_is_refused(sharded: Path, content: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    refused(sharded, ValueError, r"model\.safetensors\.index\.json")


# ---- config.json


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "'model_type' is 'mamba', which is not supported; supported: llama, mistral"),
        ({"model_type": ...}, "'model_type'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
         r"rope_type' is 'yarn', which is not supported; supported: default, linear, dynamic, llama3"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "su"}}, r"'rope_scaling\.type' is 'su'"),
        ({"rope_parameters": {"rope_type": "linear"}}, r"'rope_parameters\.factor' is missing"),
        ({"rope_parameters": {"rope_type": "linear", "factor": -1}}, r"'rope_parameters\.factor' must be .* above 0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "2"}}, r"'rope_parameters\.factor'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, r"'rope_parameters\.low_freq_factor' is missing"),
        ({"rope_parameters": 3}, "'rope_parameters' must be an object"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}},
         r"partial_rotary_factor"),
        ({"hidden_act": "relu"}, "'hidden_act' is 'relu', which is not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, "'quantization_config' is set"),
        ({"vocab_size": ...}, "'vocab_size' is missing"),
        ({"vocab_size": 0}, "'vocab_size' must be a whole number from 1"),
        ({"hidden_size": -32}, "'hidden_size' must be a whole number"),
        ({"hidden_size": 32.5}, "'hidden_size'"),
        ({"hidden_size": "32"}, "'hidden_size'"),
        ({"hidden_size": 2**40}, "'hidden_size'"),
        ({"num_hidden_layers": 2**30}, r"missing|num_hidden_layers"),
        ({"num_key_value_heads": 3}, r"'num_key_value_heads' must divide num_attention_heads \(4\), got 3"),
        ({"head_dim": 7}, "'head_dim' must be even"),
        ({"head_dim": ..., "num_attention_heads": 5, "num_key_value_heads": 5}, "'hidden_size' must be a multiple"),
        ({"rms_norm_eps": 0}, "'rms_norm_eps'"),
        ({"attention_bias": "no"}, "'attention_bias' must be true or false"),
        ({"eos_token_id": -5}, "'eos_token_id'"),
        ({"eos_token_id": [2, "x"]}, "'eos_token_id'"),
    ],
    ids=str,
)  # fmt: skip
def test_configurations_that_are_not_supported_are_refused_by_key(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    edit(folder, **changes)
    refused(folder, ValueError, f"\\[load_model\\] .*({message})")


MALFORMED_JSON = [
    b"", b"{", b'{"a": 1, "a": 2}', b'{"model_type": "\xff\xfe"}', b'{"a": NaN}', b'{"a": 1e999}', b'{"a":' * 100_000,
    b"\xef\xbb\xbf{}", b'{"model_type": "llama"} trailing', b'{"\\ud800": 1}',
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *itertools.product(["config.json", "generation_config.json", "tokenizer.json"], MALFORMED_JSON),
        *itertools.product(["config.json", "tokenizer.json"], [b"[]", b"3"]),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_malformed_json_is_refused_by_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    refused(folder, ValueError, name.replace(".", r"\."))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_refused_or_loads(folder: Path, data: st.DataObject) -> None:
    """Nothing but the documented exceptions, whatever is damaged."""
    name = data.draw(st.sampled_from(["config.json", "model.safetensors", "tokenizer.json"]))
    file = folder / name
    whole = file.read_bytes()
    limit = 2500 if name == "model.safetensors" else len(whole)
    position = data.draw(st.integers(0, limit - 1))
    file.write_bytes(whole[:position] + bytes([data.draw(st.integers(0, 255))]) + whole[position + 1 :])
    try:
        model = titer.load_model(folder)
        model(torch.tensor([[3, 4, 5]]))
    except (ValueError, OSError, IndexError) as error:
        assert str(error)
    finally:
        file.write_bytes(whole)


# ---- values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [Q_PROJ, "model.norm.weight", "model.embed_tokens.weight"])
def test_weights_that_are_not_finite_are_found_at_load_or_at_the_first_pass(
    folder: Path, name: str, value: float
) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights[name].view(-1)[70 % weights[name].numel()] = value

    edit_weights(folder, poison)
    refused(folder, ValueError, f"'{name}' holds an infinity or NaN", check_finite=True)
    model = titer.load_model(folder)
    with pytest.raises(ValueError, match=f"'{name}' holds an infinity or NaN"):
        model.check_finite()
    prompt = titer.Prompt.from_chat(model, "Tell me {slot}", target="Sure")
    everything = torch.arange(320)[None]
    with pytest.raises(ValueError, match="hidden states are not finite.*check_finite=True"):
        model(everything)
    if name == "model.embed_tokens.weight":
        return  # a prompt need not hold the row that is not finite
    with pytest.raises(ValueError, match="hidden states are not finite"):
        titer.generate(model, "Hello")
    with pytest.raises(ValueError, match="hidden states are not finite"):
        titer.attacks.GCG(num_steps=1, search_width=4).run(titer.System(model), prompt)


def test_an_unknown_dtype_or_device_is_refused_by_name(folder: Path) -> None:
    refused(folder, ValueError, "dtype must be float32, bfloat16, float16 or float64, got 'int8'", dtype="int8")
    refused(folder, ValueError, "device 'abacus'", device="abacus")


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), ValueError, r"shape \[B, L\]"),
        (torch.zeros(1, 0, dtype=torch.int64), ValueError, "L at least 1"),
        (torch.zeros(1, 3, dtype=torch.int32), TypeError, "int64, got Int"),
        (torch.zeros(1, 3), TypeError, "int64, got Float"),
        (torch.tensor([[3, 320]]), IndexError, "token id 320 is outside the vocabulary of 320"),
        (torch.tensor([[-1]]), IndexError, "token id -1"),
        (torch.zeros(1, 513, dtype=torch.int64), ValueError, "513 tokens, the model takes at most 512"),
        ([[3, 4]], TypeError, "incompatible"),
    ],
)
def test_bad_ids_are_refused_by_name(tiny_folder: Path, ids: Any, error: type[Exception], message: str) -> None:
    model = titer.load_model(tiny_folder)
    with pytest.raises(error, match=message):
        model(ids)


def test_messages_hold_no_backtrace(folder: Path) -> None:
    edit_weights(folder, drop_weight)
    with pytest.raises(ValueError) as caught:
        titer.load_model(folder)
    assert "\n" not in str(caught.value) and "Exception raised from" not in str(caught.value)
