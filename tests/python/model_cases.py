"""Random models of every family: together they ask for everything that their configurations can ask for."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer as PeerTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import titer
from tiny_models import randomise, train_tokenizer

VOCABULARY = 320  # of the tiny tokenizer

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.5],
    "long_factor": [1.2, 2.0, 4.0, 9.0],
}

# Configuration keys beyond those of `make_module`. Prompts of the tests have 25 to 90 tokens: more than the windows and
# the context that dynamic scaling starts from.
CASES: dict[str, dict[str, Any]] = {
    "grouped heads, tied": {},
    "one head per key head, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "one key head": {"num_key_value_heads": 1},
    "biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    "head_dim of its own": {"head_dim": 12, "rms_norm_eps": 1e-3},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    "dynamic rope beyond its context": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
        "max_position_embeddings": 24,
    },
    "dynamic rope within its context": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    },
    "llama3 rope": {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False},
    "mistral without a window": {"model_type": "mistral", "sliding_window": None},
    "mistral, window of 8": {"model_type": "mistral", "sliding_window": 8, "tie_word_embeddings": False},
    "mistral, window of 1": {"model_type": "mistral", "sliding_window": 1},
    "qwen2": {"model_type": "qwen2"},
    "qwen2, windows in the upper layer": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 1,
        "tie_word_embeddings": False,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
    "qwen3, biases and windows": {
        "model_type": "qwen3",
        "head_dim": 8,
        "attention_bias": True,
        "layer_types": ["sliding_attention", "full_attention"],
        "use_sliding_window": True,
        "sliding_window": 5,
    },
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "sliding_window": 7,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma2 without caps": {
        "model_type": "gemma2",
        "head_dim": 8,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "num_hidden_layers": 3,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "sliding_window": 6,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    },
    "gemma3 with a capped head": {"model_type": "gemma3_text", "head_dim": 8, "final_logit_softcapping": 4.0},
    "phi3": {"model_type": "phi3", "tie_word_embeddings": False},
    "phi3, partial rotary, window": {
        "model_type": "phi3",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "sliding_window": 9,
    },
    "phi3, longrope beyond its context": {
        "model_type": "phi3",
        "rope_parameters": LONG_ROPE,
        "original_max_position_embeddings": 24,
    },
    "phi3, longrope within its context": {
        "model_type": "phi3",
        "rope_parameters": LONG_ROPE,
        "original_max_position_embeddings": 128,
    },
    "olmo2": {"model_type": "olmo2"},
    "olmo2, biases, untied": {"model_type": "olmo2", "attention_bias": True, "tie_word_embeddings": False},
    "gpt2": {"model_type": "gpt2"},
    "gpt2, its scales": {
        "model_type": "gpt2",
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "activation_function": "gelu",
        "tie_word_embeddings": False,
    },
    "gpt_neox": {"model_type": "gpt_neox", "tie_word_embeddings": False},
    "gpt_neox, serial, no bias, half of a head rotates": {
        "model_type": "gpt_neox",
        "use_parallel_residual": False,
        "attention_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5},
    },
}


def make_module(seed: int = 0, *, model_type: str = "llama", **config: Any) -> PreTrainedModel:
    """Build a random transformers model in memory; the defaults are those of `write_tiny_llama`."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    if model_type in ("gpt2", "gpt_neox"):
        del sizes["num_key_value_heads"]
    if model_type == "gpt2":
        sizes["n_inner"] = sizes.pop("intermediate_size")
    settings = copy.deepcopy(sizes | config)  # configurations change what they are given
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings), attn_implementation="eager")
    randomise(module, seed)
    return module.to(torch.float32).eval()


class Pair(NamedTuple):
    """One model twice, on the same tensors."""

    module: PreTrainedModel
    model: titer.Model


@cache
def pair(case: str) -> Pair:
    """Return a model of `CASES`; tests must not change it."""
    module = make_module(**CASES[case])
    return Pair(module, titer.load_model(module, tokenizer=tokenizer()))


@cache
def _trained() -> str:
    return train_tokenizer(VOCABULARY).to_str()


@cache
def tokenizer(*, bos: bool = False) -> titer.Tokenizer:
    """Return the tiny tokenizer, which may put a token before every text."""
    peer = PeerTokenizer.from_str(_trained())
    if bos:
        peer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    return titer.Tokenizer.from_json(peer.to_str())


def random_slots(prompt: titer.Prompt, width: int, changes: int, seed: int) -> torch.Tensor:
    """Return slots [width, S] that differ from the prompt's own in `changes` positions; any id may come."""
    generator = torch.Generator().manual_seed(seed)
    slots = torch.tensor(prompt.slot_ids).repeat(width, 1)
    positions = torch.rand(slots.shape, generator=generator, dtype=torch.float32).argsort(1)[:, :changes]
    return slots.scatter(1, positions, torch.randint(VOCABULARY, positions.shape, generator=generator))
