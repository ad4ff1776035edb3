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
    if file.number("expert_count", 0):
        raise file.refuse("mixtures of experts are not supported")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **sizes(file),
        "hidden_act": "silu",
        "max_position_embeddings": file.size("context_length"),
        "rms_norm_eps": file.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": file.number("rope.freq_base", 10000.0),
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

    if file.tensors[_ROPE_FACTORS].shape != (head_dim // 2,):
        raise file.refuse(f"{_ROPE_FACTORS} does not hold {head_dim // 2} factors")
    factors = file.dequantised(_ROPE_FACTORS)
    low, high, original = 1.0, 4.0, 8192
    factor = float(factors.max())
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    expected = 1.0 / ((1.0 - smooth) / factor + smooth)
    if not np.allclose(factors, expected, rtol=1e-4):
        raise file.refuse(f"{_ROPE_FACTORS} does not hold the llama-3 factors of any known model")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _row_order(name: str, config: Mapping[str, Any]) -> NDArray[np.int64] | None:
    """Return where rows of each head go, which the file has in the order `0, d/2, 1, d/2+1, ...`."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is None:
        return None
    import numpy as np

    count, half = config[heads], config["head_dim"] // 2
    return np.arange(count * 2 * half).reshape(count, 2, half).swapaxes(1, 2).reshape(-1)


LLAMA = Architecture(
    config=_config,
    norms={"attn_norm": Norm("input_layernorm"), "ffn_norm": Norm("post_attention_layernorm")},
    row_order=_row_order,
    in_config=frozenset({_ROPE_FACTORS}),
)
