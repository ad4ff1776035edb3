"""Configurations that ask for what is not there, cannot be, or is not supported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad_inputs.row import Row, edit, patch_json, write

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
}
_GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "vocab_size": 320}
_LONG_ROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def _rope(parameters: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Change rope parameters; the changes come first, so that the row's name shows them."""
    both = changes | {key: value for key, value in parameters.items() if key not in changes}
    return {key: value for key, value in both.items() if value is not ...}


# Changes to the tiny llama, and what the message must hold.
_LLAMA: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "mamba"}, "'model_type' is 'mamba', which is not supported; supported: llama, mistral"),
    ({"model_type": ...}, "'model_type' is ''"),
    ({"model_type": None}, "'model_type' is ''"),
    ({"model_type": ["llama"]}, "'model_type' must be a string, got "),
    ({"model_type": "llama\0"}, r"'model_type' is 'llama\\x00'"),
    ({"model_type": "llama\n\x1b[31m"}, r"'model_type' is 'llama\\x0a\\x1b\[31m'"),
    ({"model_type": "x" * 10_000_000}, r"'model_type' is 'x+\.\.\.'"),
    ({"vocab_size": ...}, "'vocab_size' is missing"),
    ({"vocab_size": 0}, "'vocab_size' must be a whole number from 1 to 1073741824, got 0"),
    ({"vocab_size": True}, "'vocab_size' must be a whole number .*got true"),
    ({"vocab_size": [320]}, "'vocab_size' must be a whole number"),
    ({"vocab_size": "9" * 1_000_000}, r"'vocab_size' must be a whole number.*\.\.\."),
    ({"vocab_size": 321}, r"'model\.embed_tokens\.weight' must have shape \[321, 32\], got \[320, 32\]"),
    ({"hidden_size": -32}, "'hidden_size' must be a whole number"),
    ({"hidden_size": 32.0}, "'hidden_size' must be a whole number"),
    ({"hidden_size": "32"}, "'hidden_size' must be a whole number"),
    ({"hidden_size": 2**31}, "'hidden_size' must be a whole number"),
    ({"hidden_size": 2**63}, "'hidden_size' must be a whole number .*got 9223372036854775808"),
    ({"hidden_size": 2**64}, "'hidden_size' must be a whole number .*got 1.84"),
    ({"hidden_size": 2**70 * 10**200}, "'hidden_size' must be a whole number"),
    ({"hidden_size": 2**30, "vocab_size": 2**30}, r"embed_tokens\.weight' must have shape \[1073741824, 1073741824\]"),
    ({"hidden_size": 10**6, "vocab_size": 10**6}, r"embed_tokens\.weight' must have shape \[1000000, 1000000\]"),
    ({"intermediate_size": 2**30}, r"mlp\.gate_proj\.weight' must have shape \[1073741824, 32\]"),
    ({"intermediate_size": 0}, "'intermediate_size'"),
    ({"num_attention_heads": 2**30, "num_key_value_heads": 1}, r"q_proj\.weight' must have shape \[8589934592, 32\]"),
    ({"head_dim": 2**30, "num_attention_heads": 2**30, "num_key_value_heads": 2**30}, r"q_proj\.weight' must have"),
    ({"num_hidden_layers": 3}, r"'model\.layers\.2\.input_layernorm\.weight' is missing"),
    ({"num_hidden_layers": 10_000}, r"'model\.layers\.2\.input_layernorm\.weight' is missing"),
    ({"num_hidden_layers": 10_001}, "'num_hidden_layers' is 10001, more than the 10000"),
    ({"num_hidden_layers": 2**30}, "'num_hidden_layers' is 1073741824, more than"),
    ({"num_hidden_layers": 10**12}, "'num_hidden_layers' must be a whole number"),
    ({"num_key_value_heads": 3}, r"'num_key_value_heads' must divide num_attention_heads \(4\), got 3"),
    ({"num_key_value_heads": 8}, "'num_key_value_heads' must divide"),
    ({"num_attention_heads": 0}, "'num_attention_heads'"),
    ({"head_dim": 7}, "'head_dim' must be even"),
    ({"head_dim": ..., "num_attention_heads": 5, "num_key_value_heads": 5}, "'hidden_size' must be a multiple"),
    ({"max_position_embeddings": 0}, "'max_position_embeddings'"),
    ({"max_position_embeddings": 10**12}, "'max_position_embeddings'"),
    ({"rms_norm_eps": 0}, "'rms_norm_eps' must be a finite number above 0"),
    ({"rms_norm_eps": -1e-5}, "'rms_norm_eps'"),
    ({"rms_norm_eps": [1e-5]}, "'rms_norm_eps'"),
    ({"rms_norm_eps": True}, "'rms_norm_eps'"),
    ({"hidden_act": "relu"}, "'hidden_act' is 'relu', which is not supported"),
    ({"hidden_act": 1}, "'hidden_act' must be a string"),
    ({"attention_bias": "no"}, "'attention_bias' must be true or false"),
    ({"attention_bias": 0}, "'attention_bias' must be true or false, got 0"),
    ({"attention_bias": True}, r"q_proj\.bias' is missing"),
    ({"mlp_bias": True}, r"gate_proj\.bias' is missing"),
    ({"tie_word_embeddings": 1}, "'tie_word_embeddings' must be true or false"),
    ({"tie_word_embeddings": False}, r"'lm_head\.weight' is missing"),
    ({"quantization_config": {"quant_method": "gptq"}}, "'quantization_config' is set"),
    ({"attn_logit_softcapping": 50.0}, "'attn_logit_softcapping' is set"),
    ({"use_bidirectional_attention": True}, "'use_bidirectional_attention' is true"),
    ({"add_cross_attention": "yes"}, "'add_cross_attention' must be true or false"),
    ({"eos_token_id": -5}, "'eos_token_id' must be a token id"),
    ({"eos_token_id": 2**31}, "'eos_token_id' must be a token id"),
    ({"eos_token_id": 2.0}, "'eos_token_id' must be a token id"),
    ({"eos_token_id": [2, "x"]}, "'eos_token_id' must be a token id"),
    ({"eos_token_id": [[2]]}, "'eos_token_id' must be a token id"),
    ({"dtype": 16}, "'dtype' must be a string"),
    ({"torch_dtype": {}}, "'torch_dtype' must be a string"),
    ({"layer_types": ["full_attention"]}, "'layer_types' must have an entry for each of the 2 layers, got 1"),
    ({"layer_types": ["full_attention"] * 100_000}, "'layer_types' must have an entry for each.*got 100000"),
    ({"layer_types": ["full_attention", "chunked"]}, "'layer_types' holds 'chunked'"),
    ({"layer_types": "full_attention"}, "'layer_types' must be a list of strings"),
    ({"layer_types": ["full_attention", None]}, "'layer_types' must be a list of strings"),
    ({"layer_types": ["sliding_attention"] * 2}, "'layer_types' asks for sliding windows"),
    ({"rope_parameters": 3}, "'rope_parameters' must be an object"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
     r"rope_type' is 'yarn', which is not supported; supported: default, linear, dynamic, llama3"),
    ({"rope_parameters": {"rope_type": 7}}, r"'rope_parameters\.rope_type' must be a string"),
    ({"rope_parameters": {"rope_theta": 0}}, r"'rope_parameters\.rope_theta'"),
    ({"rope_parameters": ..., "rope_theta": -1}, "'rope_theta'"),
    ({"rope_parameters": ..., "rope_scaling": {"type": "su"}}, r"'rope_scaling\.type' is 'su'"),
    ({"rope_parameters": {"rope_type": "linear"}}, r"'rope_parameters\.factor' is missing"),
    ({"rope_parameters": {"rope_type": "linear", "factor": -1}}, r"'rope_parameters\.factor' must be .* above 0"),
    ({"rope_parameters": {"rope_type": "linear", "factor": "2"}}, r"'rope_parameters\.factor'"),
    ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}},
     "partial_rotary_factor' must be 1"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, r"'rope_parameters\.low_freq_factor' is missing"),
    ({"rope_parameters": _rope(_LLAMA3, {"high_freq_factor": 0.5})},
     "'rope_parameters.high_freq_factor' must be larger"),
    ({"rope_parameters": {"original_max_position_embeddings": 0} | _LLAMA3}, "original_max_position_embeddings"),
    ({"rope_parameters": _rope(_LONG_ROPE, {"short_factor": [1.0] * 3})},
     "'rope_parameters.short_factor' must be a list of"),
    ({"rope_parameters": _rope(_LONG_ROPE, {"long_factor": [1.0] * 10_000})}, "long_factor' must be a list of 4"),
    ({"rope_parameters": _rope(_LONG_ROPE, {"long_factor": ...})}, "long_factor' is missing"),
    ({"rope_parameters": _rope(_LONG_ROPE, {"long_factor": [0.0] * 4})}, "long_factor' must be a list of 4 finite"),
    ({"rope_parameters": _rope(_LONG_ROPE, {"long_factor": [1, 1, 1, "1"]})},
     "long_factor' must be a list of 4 finite"),
    ({"rope_parameters": _LONG_ROPE, "original_max_position_embeddings": 1}, "original_max_position_embeddings"),
]  # fmt: skip

# Whole configurations of other families, which are read before any weight.
_FAMILIES: list[tuple[dict[str, Any], str]] = [
    ({**_SIZES, "model_type": "mistral", "sliding_window": 0}, "'sliding_window' must be a whole number"),
    ({**_SIZES, "model_type": "mistral", "sliding_window": "4k"}, "'sliding_window' must be a whole number"),
    ({**_SIZES, "model_type": "mistral", "sliding_window": -1}, "'sliding_window' must be a whole number"),
    ({**_SIZES, "model_type": "qwen2", "max_window_layers": -1}, "'max_window_layers' must be a whole number from 0"),
    ({**_SIZES, "model_type": "qwen2", "use_sliding_window": 1}, "'use_sliding_window' must be true or false"),
    ({**_SIZES, "model_type": "qwen2"}, r"q_proj\.bias' is missing"),
    ({**_SIZES, "model_type": "qwen3", "head_dim": 8}, r"q_norm\.weight' is missing"),
    ({**_SIZES, "model_type": "gemma2", "attn_logit_softcapping": 0}, "'attn_logit_softcapping' must be a finite"),
    ({**_SIZES, "model_type": "gemma2", "final_logit_softcapping": "30"}, "'final_logit_softcapping' must be"),
    ({**_SIZES, "model_type": "gemma2", "query_pre_attn_scalar": -256}, "'query_pre_attn_scalar' must be a finite"),
    ({**_SIZES, "model_type": "gemma2", "hidden_activation": "relu6"}, "'hidden_activation' is 'relu6'"),
    ({**_SIZES, "model_type": "gemma3_text", "sliding_window_pattern": 0}, "'sliding_window_pattern' must be"),
    ({**_SIZES, "model_type": "gemma3_text", "head_dim": 8, "query_pre_attn_scalar": 0},
     "'query_pre_attn_scalar' must be a finite"),
    ({**_SIZES, "model_type": "gemma3_text", "rope_parameters": {"full_attention": 1}},
     r"'rope_parameters\.full_attention' must be an object"),
    ({**_SIZES, "model_type": "gemma3_text", "rope_local_base_freq": -1}, "'rope_local_base_freq' must be"),
    ({**_SIZES, "model_type": "gemma3_text", "layer_types": ["full"]}, "'layer_types' holds 'full'"),
    ({"model_type": "gemma3", "text_config": {**_SIZES, "model_type": "gemma3_text"}}, "'model_type' is 'gemma3'"),
    ({**_SIZES, "model_type": "phi3", "partial_rotary_factor": 1.5}, "'partial_rotary_factor' must be at most 1"),
    ({**_SIZES, "model_type": "phi3", "partial_rotary_factor": 1e-300}, "'partial_rotary_factor' must be at most 1"),
    ({**_SIZES, "model_type": "phi3", "rope_scaling": {"type": "su", "short_factor": [1.0] * 4}},
     r"'rope_scaling\.long_factor' is missing"),
    ({**_SIZES, "model_type": "phi3"}, r"qkv_proj\.weight' is missing"),
    ({**_SIZES, "model_type": "olmo2"}, r"q_norm\.weight' is missing"),
    ({**_SIZES, "model_type": "gpt_neox", "rotary_pct": 0}, "'rotary_pct' must be a finite number above 0"),
    ({**_SIZES, "model_type": "gpt_neox", "rotary_pct": 0.9}, "rotary_factor' must be at most 1 and make an even part"),
    ({**_SIZES, "model_type": "gpt_neox", "use_parallel_residual": None, "layer_norm_eps": -0.0}, "'layer_norm_eps'"),
    ({**_GPT2, "n_embd": 33}, "'n_embd' must be a multiple of n_head"),
    ({**_GPT2, "n_inner": 0}, "'n_inner' must be a whole number"),
    ({**_GPT2, "n_layer": -2}, "'n_layer' must be a whole number"),
    ({**_GPT2, "n_positions": 2**30, "n_embd": 2**30, "n_head": 1}, r"wte\.weight' is missing"),
    ({**_GPT2, "scale_attn_weights": "true"}, "'scale_attn_weights' must be true or false"),
    ({**_GPT2, "activation_function": "softsign"}, "'activation_function' is 'softsign'"),
]  # fmt: skip

# Numbers that Python's json module would not write.
_LITERALS = [
    ("hidden_size", "-0", "'hidden_size' must be a whole number .*got 0"),
    ("hidden_size", "32e0", "'hidden_size' must be a whole number .*got 32.0"),
    ("hidden_size", "18446744073709551648", "'hidden_size' must be a whole number"),
    ("hidden_size", "-18446744073709551584", "'hidden_size' must be a whole number"),
    ("hidden_size", "1e400", "beyond the range of a double"),
    ("hidden_size", "0x20", "syntax error"),
    ("hidden_size", "+32", "syntax error"),
    ("hidden_size", "032", "syntax error"),
    ("rms_norm_eps", "1e-400", "'rms_norm_eps' must be a finite number above 0"),
    ("rms_norm_eps", "-0.0", "'rms_norm_eps' must be a finite number above 0"),
    ("rms_norm_eps", "Infinity", "syntax error"),
]


def _literal(key: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        value = json.loads((folder / "config.json").read_text())[key]
        patch_json("config.json", f'"{key}": {value}', f'"{key}": {text}')(folder)

    return damage


def rows() -> Iterator[Row]:
    for changes, message in _LLAMA:
        # A weight that is missing is one of the folder, not of the configuration.
        file = "model" if "weight" in message or "bias' is" in message else "config.json"
        yield Row(f"config {_named(changes)}", file, edit("config.json", changes), message)
    for config, message in _FAMILIES:
        file = "model" if "missing" in message and "rope" not in message else "config.json"
        changes = {key: value for key, value in config.items() if key not in _SIZES}
        yield Row(f"config {_named(changes)}", file, write("config.json", json.dumps(config)), message)
    for key, text, message in _LITERALS:
        yield Row(f"config {key} is {text}", "config.json", _literal(key, text), message)
    for ids in (-1, "2", [None], {"a": 1}, 1e30):
        damage = write("generation_config.json", json.dumps({"eos_token_id": ids}))
        yield Row(f"generation eos_token_id is {ids}", "generation_config.json", damage, "'eos_token_id' must be a tok")


def _named(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key}={str(value)[:60]}" for key, value in changes.items()).encode("unicode_escape").decode()
