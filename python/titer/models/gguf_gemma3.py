"""GGUF files of Gemma 3, text only (arXiv 2503.19786).

GGUF keeps what a norm multiplies with; a Hugging Face folder keeps that minus one. Query and key rows stay as they are.
Three settings are llama.cpp's constants for this architecture unless the file names them: every sixth layer attends to
everything, the others rotate with base 10,000, and attention is scaled by the head's size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from titer.models.gguf_architecture import Architecture, Norm, linear_rope_factor, sizes
from titer.models.gguf_metadata import shown

if TYPE_CHECKING:
    from titer.models.gguf_file import GgufFile

# A key that is not among these could change what the model computes.
_KNOWN_KEYS = {
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.layer_norm_rms_epsilon",
    "attention.sliding_window", "attention.sliding_window_pattern", "attention.value_length", "attn_logit_softcapping",
    "block_count", "context_length", "embedding_length", "feed_forward_length", "final_logit_softcapping",
    "rope.dimension_count", "rope.freq_base", "rope.freq_base_swa", "rope.scaling.factor", "rope.scaling.type",
    "vocab_size",
}  # fmt: skip
_LAYERS_OF_27B = 62  # the one size whose attention is scaled by hidden size / heads instead of the head's size


def _config(file: GgufFile) -> dict[str, Any]:
    prefix = f"{file.architecture}."
    own = {key.removeprefix(prefix) for key in file.metadata.pairs if key.startswith(prefix)}
    if unknown := sorted(own - _KNOWN_KEYS):
        raise file.refuse(f"{shown(prefix + unknown[0])} is not known here, and may change what the model computes")
    common = sizes(file)
    layers, heads = common["num_hidden_layers"], common["num_attention_heads"]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **common,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": file.size("context_length"),
        "rms_norm_eps": file.number("attention.layer_norm_rms_epsilon"),
        "query_pre_attn_scalar": common["hidden_size"] // heads if layers == _LAYERS_OF_27B else common["head_dim"],
        "sliding_window": file.size("attention.sliding_window"),
        "layer_types": _layer_types(file, layers),
        "rope_parameters": {
            "sliding_attention": _rope(file.number("rope.freq_base_swa", 10000.0), None),
            "full_attention": _rope(file.number("rope.freq_base", 1000000.0), linear_rope_factor(file)),
        },
        "attn_logit_softcapping": _soft_cap(file, "attn_logit_softcapping"),
        "final_logit_softcapping": _soft_cap(file, "final_logit_softcapping"),
        "use_bidirectional_attention": False,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "dtype": "bfloat16",
        "use_cache": True,
    }


def _layer_types(file: GgufFile, layers: int) -> list[str]:
    period = file.size("attention.sliding_window_pattern", 6)
    return ["full_attention" if layer % period == period - 1 else "sliding_attention" for layer in range(layers)]


def _rope(theta: float, factor: float | None) -> dict[str, Any]:
    if factor is None:
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": "linear", "rope_theta": theta, "factor": factor}


def _soft_cap(file: GgufFile, key: str) -> float | None:
    return file.number(key, 0.0) or None


GEMMA3 = Architecture(
    config=_config,
    norms={
        "attn_norm": Norm("input_layernorm"),
        "attn_q_norm": Norm("self_attn.q_norm", "head_dim"),
        "attn_k_norm": Norm("self_attn.k_norm", "head_dim"),
        "post_attention_norm": Norm("post_attention_layernorm"),
        "ffn_norm": Norm("pre_feedforward_layernorm"),
        "post_ffw_norm": Norm("post_feedforward_layernorm"),
    },
    norm_shift=1.0,
)
