"""Converts a GGUF file of the llama family into a Hugging Face folder.

Quantised tensors are de-quantised one at a time with the `gguf` package and stored as bfloat16. GGUF keeps the rows of
the query and key projections in the order of interleaved rotary pairs; a Hugging Face folder keeps them in halves, so
those rows are put back.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titer.models.gguf_tokenizer import read_tokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from gguf import GGUFReader
    from numpy.typing import NDArray

# Part of the provenance; a cached folder of another version is converted again.
CONVERTER_VERSION = 1

_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_MODEL_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_ROPE_FACTORS = "rope_freqs.weight"

Progress = Callable[[int, int], None]
"""Called with the tensors done and the tensors in all."""


def convert_gguf(
    source: Path, folder: Path, *, provenance: dict[str, Any], progress: Progress = lambda done, total: None
) -> None:
    """Write config, tokenizer, chat template, bfloat16 weights and `titer.json` for a GGUF file into `folder`.

    Parameters
    ----------
    source
        A GGUF file whose architecture is `llama` (llama, mistral and smollm models).
    folder
        An existing, empty directory. The caller makes it appear under its final name when this returns.
    provenance
        Where the file came from; stored in `titer.json` beside the converter's version.

    Raises
    ------
    ValueError
        If the file is not GGUF, or describes something that this conversion does not know exactly.
    OSError
        If a file cannot be read or written.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    reader = _open(source)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    origin = source.name
    if metadata.get("split.count", 1) > 1:
        raise ValueError(f"[gguf] the model is split over {metadata['split.count']} files; merge them first ({origin})")
    config = _config(metadata, reader, origin)
    tokenizer = read_tokenizer(metadata, origin=origin)
    if tokenizer.tokenizer.get_vocab_size() > config["vocab_size"]:
        raise ValueError(
            f"[gguf] {tokenizer.tokenizer.get_vocab_size()} tokens but {config['vocab_size']} embedding rows ({origin})"
        )

    weights: dict[str, torch.Tensor] = {}
    shapes = _expected_shapes(config)
    for done, tensor in enumerate(reader.tensors):
        progress(done, len(reader.tensors))
        if tensor.name == _ROPE_FACTORS:  # expressed in config["rope_scaling"]
            continue
        name = _weight_name(tensor.name, origin)
        values = _dequantised(tensor)
        if tuple(values.shape) != shapes.pop(name, None):
            raise ValueError(f"[gguf] tensor {tensor.name} of shape {list(values.shape)} does not fit ({origin})")
        if ".q_proj." in name:
            values = _rows_in_halves(values, config["num_attention_heads"])
        elif ".k_proj." in name:
            values = _rows_in_halves(values, config["num_key_value_heads"])
        weights[name] = torch.from_numpy(values.copy()).to(torch.bfloat16)
        if not torch.isfinite(weights[name]).all():
            raise ValueError(f"[gguf] tensor {tensor.name} holds values that are not finite ({origin})")
    if shapes:
        raise ValueError(f"[gguf] {len(shapes)} tensors are missing, the first is {next(iter(shapes))} ({origin})")
    progress(len(reader.tensors), len(reader.tensors))

    config |= {"eos_token_id": _one_or_list(tokenizer.end_ids)}
    for role, key in (("bos", "bos_token_id"), ("padding", "pad_token_id")):
        config[key] = metadata.get(f"tokenizer.ggml.{role}_token_id")
    special_ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", special_ids)
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    limit = {"model_max_length": config["max_position_embeddings"]}
    _write_json(folder / "tokenizer_config.json", tokenizer.config | limit)
    if tokenizer.chat_template is not None:
        (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    try:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # an OSError in disguise, for example a full disk
        raise OSError(f"[gguf] the weights cannot be written: {error} ({folder})") from error
    _write_json(
        folder / "titer.json",
        {
            "source": provenance,
            "name": metadata.get("general.name"),
            "license": metadata.get("general.license"),
            "tensor_types": sorted({tensor.tensor_type.name for tensor in reader.tensors}),
            "converter_version": CONVERTER_VERSION,
        },
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open(source: Path) -> GGUFReader:
    from gguf import GGUFReader

    with source.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"[gguf] expected the magic bytes 'GGUF', got {magic!r}; not a GGUF file ({source.name})")
    try:
        return GGUFReader(source)
    except Exception as error:  # the reader lets numpy's and struct's exceptions through
        raise ValueError(f"[gguf] the header cannot be read, the file is damaged: {error} ({source.name})") from error


def _config(metadata: dict[str, Any], reader: GGUFReader, origin: str) -> dict[str, Any]:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"[gguf] general.architecture is {architecture!r}; supported: 'llama' ({origin})")

    def value(key: str, default: Any = None) -> Any:
        found = metadata.get(f"llama.{key}", default)
        if found is None:
            raise ValueError(f"[gguf] llama.{key} is missing ({origin})")
        return found

    if value("expert_count", 0):
        raise ValueError(f"[gguf] mixtures of experts are not supported ({origin})")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if "token_embd.weight" not in tensors:
        raise ValueError(f"[gguf] token_embd.weight is missing ({origin})")
    hidden, heads = value("embedding_length"), value("attention.head_count")
    head_dim = value("attention.key_length", hidden // heads)
    if value("rope.dimension_count", head_dim) != head_dim or value("attention.value_length", head_dim) != head_dim:
        raise ValueError(f"[gguf] rotary, key and value dimensions differ, which is not supported ({origin})")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "hidden_size": hidden,
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": _shortest_float32(value("attention.layer_norm_rms_epsilon")),
        "rope_theta": _shortest_float32(value("rope.freq_base", 10000.0)),
        "rope_scaling": None,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
    scaling = value("rope.scaling.type", "none")
    if scaling == "linear":
        config["rope_scaling"] = {"rope_type": "linear", "factor": float(value("rope.scaling.factor"))}
    elif scaling != "none":
        raise ValueError(f"[gguf] llama.rope.scaling.type is {scaling!r}; supported: none, linear ({origin})")
    if _ROPE_FACTORS in tensors:
        factors = _dequantised(tensors[_ROPE_FACTORS])
        config["rope_scaling"] = _llama3_scaling(factors, config["rope_theta"], head_dim, origin)
    return config


def _llama3_scaling(factors: NDArray[np.float32], theta: float, head_dim: int, origin: str) -> dict[str, Any]:
    """Recover the llama-3 rotary settings from the divisor per frequency that GGUF stores in their place."""
    import numpy as np

    low, high, original = 1.0, 4.0, 8192
    factor = float(factors.max())
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    expected = 1.0 / ((1.0 - smooth) / factor + smooth)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-4):
        raise ValueError(f"[gguf] {_ROPE_FACTORS} does not hold the llama-3 factors of any known model ({origin})")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{name}.weight"] = (hidden,)
        linears = {
            "self_attn.q_proj": (queries, hidden, config["attention_bias"]),
            "self_attn.k_proj": (keys, hidden, config["attention_bias"]),
            "self_attn.v_proj": (keys, hidden, config["attention_bias"]),
            "self_attn.o_proj": (hidden, queries, config["attention_bias"]),
            "mlp.gate_proj": (inner, hidden, config["mlp_bias"]),
            "mlp.up_proj": (inner, hidden, config["mlp_bias"]),
            "mlp.down_proj": (hidden, inner, config["mlp_bias"]),
        }
        for name, (rows, columns, bias) in linears.items():
            shapes[f"{prefix}.{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"{prefix}.{name}.bias"] = (rows,)
    return shapes


def _weight_name(name: str, origin: str) -> str:
    if name in _MODEL_TENSORS:
        return _MODEL_TENSORS[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[1].isdecimal() and parts[2] in _LAYER_TENSORS:
        return f"model.layers.{int(parts[1])}.{_LAYER_TENSORS[parts[2]]}.{parts[3]}"
    raise ValueError(f"[gguf] tensor {name} has no place in a llama model ({origin})")


def _dequantised(tensor: Any) -> NDArray[np.float32]:
    """Return a tensor of a `GGUFReader` as float32 in row-major order."""
    from gguf.quants import dequantize

    values: NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type)
    return values.reshape([int(size) for size in reversed(tensor.shape)])


def _rows_in_halves(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of each head from `0, d/2, 1, d/2+1, ...` to `0, 1, ..., d-1`."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    halves: NDArray[np.float32] = pairs.swapaxes(1, 2).reshape(values.shape)
    return halves


def _shortest_float32(value: float) -> float:
    """Return the shortest decimal that is the same float32: GGUF stores 1e-5 as 9.9999997e-06."""
    import numpy as np

    return float(str(np.float32(value)))


def _one_or_list(ids: list[int]) -> int | list[int] | None:
    return ids if len(ids) > 1 else (ids[0] if ids else None)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
