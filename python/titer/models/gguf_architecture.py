"""What the architectures that GGUF files are converted from have in common, and how one states its differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from titer.models.gguf_file import GgufFile

_MODEL_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LINEARS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class Norm:
    """A normalisation inside a layer: its Hugging Face name and the configuration key that holds its length."""

    name: str
    length: str = "hidden_size"


@dataclass(frozen=True)
class Architecture:
    """How the GGUF files of one architecture become a Hugging Face folder.

    Attributes
    ----------
    config
        Makes `config.json`, token ids left out. It refuses what it cannot express.
    norms
        The normalisations of a layer by their GGUF names.
    restored
        Undoes what llama.cpp changes in a tensor: takes its Hugging Face name, its values and the configuration.
    in_config
        Tensors that `config` has expressed, so that they are not weights.
    """

    config: Callable[[GgufFile], dict[str, Any]]
    norms: Mapping[str, Norm]
    restored: Callable[[str, NDArray[np.float32], Mapping[str, Any]], NDArray[np.float32]]
    in_config: frozenset[str] = frozenset()

    def weight_name(self, name: str) -> str | None:
        """Return the Hugging Face name of a GGUF tensor, None if it has no place in the architecture."""
        if name in _MODEL_TENSORS:
            return _MODEL_TENSORS[name]
        parts = name.split(".")
        if len(parts) != 4 or parts[0] != "blk" or not parts[1].isdecimal():
            return None
        stem = self.norms[parts[2]].name if parts[2] in self.norms else _LINEARS.get(parts[2])
        return stem and f"model.layers.{int(parts[1])}.{stem}.{parts[3]}"

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight that a model of this configuration has, by Hugging Face name."""
        hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
        queries = config["num_attention_heads"] * config["head_dim"]
        keys = config["num_key_value_heads"] * config["head_dim"]
        attention_bias, mlp_bias = config["attention_bias"], config.get("mlp_bias", False)
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (vocabulary, hidden),
            "model.norm.weight": (hidden,),
        }
        if not config["tie_word_embeddings"]:
            shapes["lm_head.weight"] = (vocabulary, hidden)
        for layer in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}"
            for norm in self.norms.values():
                shapes[f"{prefix}.{norm.name}.weight"] = (config[norm.length],)
            linears = {
                "self_attn.q_proj": (queries, hidden, attention_bias),
                "self_attn.k_proj": (keys, hidden, attention_bias),
                "self_attn.v_proj": (keys, hidden, attention_bias),
                "self_attn.o_proj": (hidden, queries, attention_bias),
                "mlp.gate_proj": (inner, hidden, mlp_bias),
                "mlp.up_proj": (inner, hidden, mlp_bias),
                "mlp.down_proj": (hidden, inner, mlp_bias),
            }
            for name, (rows, columns, bias) in linears.items():
                shapes[f"{prefix}.{name}.weight"] = (rows, columns)
                if bias:
                    shapes[f"{prefix}.{name}.bias"] = (rows,)
        return shapes


def sizes(file: GgufFile) -> dict[str, Any]:
    """Return the configuration keys that every architecture takes from the file in the same way."""
    if "token_embd.weight" not in file.tensors:
        raise file.refuse("token_embd.weight is missing")
    hidden, heads = file.value("embedding_length"), file.value("attention.head_count")
    head_dim = file.value("attention.key_length", hidden // heads)
    others = (file.value("rope.dimension_count", head_dim), file.value("attention.value_length", head_dim))
    if others != (head_dim, head_dim):
        raise file.refuse("rotary, key and value dimensions differ, which is not supported")
    return {
        "vocab_size": int(file.tensors["token_embd.weight"].shape[1]),
        "hidden_size": hidden,
        "intermediate_size": file.value("feed_forward_length"),
        "num_hidden_layers": file.value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.value("attention.head_count_kv", heads),
        "head_dim": head_dim,
    }


def linear_rope_factor(file: GgufFile) -> float | None:
    """Return by how much positions are stretched, None if they are not; other scalings are refused."""
    scaling = file.value("rope.scaling.type", "none")
    if scaling == "none":
        return None
    if scaling != "linear":
        raise file.refuse(f"{file.architecture}.rope.scaling.type is {scaling!r}; supported: none, linear")
    return float(file.value("rope.scaling.factor"))
