"""What the architectures that GGUF files are converted from have in common, and how one states its differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from titer.models.gguf_metadata import shown

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
    row_order
        Where llama.cpp has moved rows: takes a Hugging Face name and the configuration and returns, for each row of the
        file, which one it is; None where rows are in order.
    norm_shift
        What the file has added to the weights of norms.
    in_config
        Tensors that `config` has expressed, so that they are not weights.
    """

    config: Callable[[GgufFile], dict[str, Any]]
    norms: Mapping[str, Norm]
    row_order: Callable[[str, Mapping[str, Any]], NDArray[np.int64] | None] = lambda name, config: None
    norm_shift: float = 0.0
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
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise file.refuse("token_embd.weight is missing or no matrix")
    hidden, heads = file.size("embedding_length"), file.size("attention.head_count")
    head_dim = file.size("attention.key_length", max(hidden // heads, 1))
    others = (file.size("rope.dimension_count", head_dim), file.size("attention.value_length", head_dim))
    if others != (head_dim, head_dim):
        raise file.refuse("rotary, key and value dimensions differ, which is not supported")
    if head_dim % 2:
        raise file.refuse(f"a head has {head_dim} dimensions, expected an even number")
    layers = file.size("block_count")
    if layers * len(_LINEARS) > len(file.tensors):  # before anything is made for each of them
        raise file.refuse(f"{file.architecture}.block_count is {layers}, but there are {len(file.tensors)} tensors")
    return {
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": file.size("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": file.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
    }


def linear_rope_factor(file: GgufFile) -> float | None:
    """Return by how much positions are stretched, None if they are not; other scalings are refused."""
    scaling = file.text("rope.scaling.type", "none")
    if scaling == "none":
        return None
    if scaling != "linear":
        raise file.refuse(f"{file.architecture}.rope.scaling.type is {shown(scaling)}; supported: none, linear")
    return file.number("rope.scaling.factor")
