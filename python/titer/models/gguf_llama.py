"""GGUF files of the llama family: llama, mistral and smollm models.

GGUF keeps the rows of the query and key projections in the order of interleaved rotary pairs; a Hugging Face folder
keeps them in halves, so those rows are put back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from titer.models.gguf_architecture import Architecture, Norm, linear_rope_factor, sizes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from titer.models.gguf_file import GgufFile

_ROPE_FACTORS = "rope_freqs.weight"


def _config(file: GgufFile) -> dict[str, Any]:
    if file.value("expert_count", 0):
        raise file.refuse("mixtures of experts are not supported")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **sizes(file),
        "hidden_act": "silu",
        "max_position_embeddings": file.value("context_length"),
        "rms_norm_eps": file.float32("attention.layer_norm_rms_epsilon"),
        "rope_theta": file.float32("rope.freq_base", 10000.0),
        "rope_scaling": None,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
    if (factor := linear_rope_factor(file)) is not None:
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    if _ROPE_FACTORS in file.tensors:
        config["rope_scaling"] = _llama3_scaling(file, config["rope_theta"], config["head_dim"])
    return config


def _llama3_scaling(file: GgufFile, theta: float, head_dim: int) -> dict[str, Any]:
    """Recover the llama-3 rotary settings from the divisor per frequency that GGUF stores in their place."""
    import numpy as np

    factors = file.dequantised(_ROPE_FACTORS)
    low, high, original = 1.0, 4.0, 8192
    factor = float(factors.max())
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    expected = 1.0 / ((1.0 - smooth) / factor + smooth)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-4):
        raise file.refuse(f"{_ROPE_FACTORS} does not hold the llama-3 factors of any known model")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _restored(name: str, values: NDArray[np.float32], config: Mapping[str, Any]) -> NDArray[np.float32]:
    if ".q_proj." in name:
        return _rows_in_halves(values, config["num_attention_heads"])
    if ".k_proj." in name:
        return _rows_in_halves(values, config["num_key_value_heads"])
    return values


def _rows_in_halves(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of each head from `0, d/2, 1, d/2+1, ...` to `0, 1, ..., d-1`."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    halves: NDArray[np.float32] = pairs.swapaxes(1, 2).reshape(values.shape)
    return halves


LLAMA = Architecture(
    config=_config,
    norms={"attn_norm": Norm("input_layernorm"), "ffn_norm": Norm("post_attention_layernorm")},
    restored=_restored,
    in_config=frozenset({_ROPE_FACTORS}),
)
