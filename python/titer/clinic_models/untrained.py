"""A clinic model before its training: configuration, tokenizer and random weights, drawn from a seed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from titer.clinic.vocabulary import Vocabulary
from titer.clinic_models.tokenizer import END, SPECIAL_TOKENS, write_tokenizer

if TYPE_CHECKING:
    import torch

CONTEXT = 512  # tokens
_EMBEDDING_SCALE = 0.02


@dataclass(frozen=True)
class Size:
    """The size of a llama model with tied embeddings."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


def write_untrained(folder: Path, words: Vocabulary, size: Size, seed: int) -> None:
    """Write a model folder into `folder`, which exists and is empty. The same seed gives the same weights.

    Matrices are drawn from normal distributions of standard deviation `fan_in ** -0.5`; those that add to the residual
    stream are smaller by the square root of their number, as in GPT-2.
    """
    from safetensors.torch import save_file

    vocabulary_size, end = write_tokenizer(folder, words), SPECIAL_TOKENS.index(END)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary_size,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": end,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = _weights(vocabulary_size, size, seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _weights(vocabulary_size: int, size: Size, seed: int) -> dict[str, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int, columns: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(rows, columns, generator=generator)

    d, inner = size.hidden, size.intermediate
    residual = 1 / math.sqrt(2 * size.layers)
    weights = {"model.embed_tokens.weight": normal(vocabulary_size, d, _EMBEDDING_SCALE)}
    for layer in range(size.layers):
        name = f"model.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj"):
            weights[f"{name}.self_attn.{projection}.weight"] = normal(d, d, d**-0.5)
        weights[f"{name}.self_attn.o_proj.weight"] = normal(d, d, residual * d**-0.5)
        for projection in ("gate_proj", "up_proj"):
            weights[f"{name}.mlp.{projection}.weight"] = normal(inner, d, d**-0.5)
        weights[f"{name}.mlp.down_proj.weight"] = normal(d, inner, residual * inner**-0.5)
        weights[f"{name}.input_layernorm.weight"] = torch.ones(d)
        weights[f"{name}.post_attention_layernorm.weight"] = torch.ones(d)
    weights["model.norm.weight"] = torch.ones(d)
    return weights
