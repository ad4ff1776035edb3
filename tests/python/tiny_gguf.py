"""Writes a GGUF file from a small Hugging Face folder, as llama.cpp's converter lays it out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, TokenType, quants
from safetensors.torch import load_file

from tiny_gemma import tokenizer_metadata

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
_NORMS = {  # by model type
    "llama": {"post_attention_layernorm": "ffn_norm"},
    "gemma3_text": {
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}

_VALUE_TYPES = {int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32, str: GGUFValueType.STRING}

Tensors = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def write_gguf(
    folder: Path,
    file: Path,
    *,
    pre: str = "gpt-2",
    architecture: str | None = None,
    matrices: GGMLQuantizationType = GGMLQuantizationType.F32,
    keys: dict[str, int | float | str] | None = None,
    change: Callable[[Tensors], object] = lambda tensors: None,
) -> Path:
    """Write the model and tokenizer of `folder`, a llama or a Gemma 3, to `file` and return `file`.

    Parameters
    ----------
    pre
        Value of `tokenizer.ggml.pre` for a llama.
    architecture
        Another name for it than its own.
    matrices
        Type that weights of linear layers are stored in.
    keys
        Further metadata: integers, floats or strings.
    change
        Edits the tensors, by their GGUF names, before they are written.
    """
    config = json.loads((folder / "config.json").read_text())
    gemma = config["model_type"] == "gemma3_text"
    writer = GGUFWriter(file, architecture or ("gemma3" if gemma else "llama"))
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base((rope["full_attention"] if gemma else rope)["rope_theta"])
    if gemma:
        writer.add_sliding_window(config["sliding_window"])
        _add_gemma_tokenizer(writer)
    else:
        _add_tokenizer(writer, folder, pre)
    for key, value in (keys or {}).items():
        writer.add_key_value(key, value, _VALUE_TYPES[type(value)])

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    tensors: Tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        values = tensor.float().numpy()
        for projection, count in heads.items():
            if projection in name and not gemma:
                values = _interleaved(values, count)
        if gemma and name.endswith("norm.weight"):
            values = values + 1
        tensors[_gguf_name(name, config["model_type"])] = values
    change(tensors)
    for name, values in tensors.items():
        if values.ndim == 2 and name.startswith("blk."):
            writer.add_tensor(name, quants.quantize(values, matrices), raw_dtype=matrices)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: GGUFWriter, folder: Path, pre: str) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(vocabulary[config["bos_token"]])
    writer.add_eos_token_id(vocabulary[config["eos_token"]])
    writer.add_pad_token_id(vocabulary[config["pad_token"]])
    template = folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text())


def _add_gemma_tokenizer(writer: GGUFWriter) -> None:
    metadata = tokenizer_metadata()
    writer.add_token_list(metadata.pop("tokenizer.ggml.tokens"))
    writer.add_token_types(metadata.pop("tokenizer.ggml.token_type"))
    writer.add_token_scores(metadata.pop("tokenizer.ggml.scores"))
    for key, value in metadata.items():
        writer.add_key_value(key, value, GGUFValueType.BOOL if type(value) is bool else _VALUE_TYPES[type(value)])


def _gguf_name(name: str, model_type: str) -> str:
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, kind = name.rsplit(".", 1)
    if stem in whole:
        return f"{whole[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{(_NAMES | _NORMS[model_type])[part]}.{kind}"


def _interleaved(values: np.ndarray[Any, np.dtype[np.float32]], heads: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Put row i + d/2 of a head right behind row i: the order in which llama.cpp rotates pairs."""
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
