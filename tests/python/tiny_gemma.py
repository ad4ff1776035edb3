"""Writes small random Gemma 3 models, and tokenizes as SentencePiece does."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from gguf import TokenType
from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM

from tiny_models import randomise

SPACE = "\u2581"
_CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
_RUNS_OF_SPACES = [SPACE * count for count in range(2, 6)]
_USER_DEFINED = ["\n", "\n\n", "\n\n\n", *_RUNS_OF_SPACES, "<td>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_SENTENCES = [
    "the patient asked the nurse about the new medicine, and the nurse said that it is safe",
    "hahahaha lalala in 2024 and 1987 there is no answer to the question that is known",
    "what is the capital of the country and how many people live there today é 漢",
]


def _learnt_tokens() -> list[str]:
    """Return what training finds: words in the order of their merges, then the characters."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    tokenizer.train_from_iterator(_SENTENCES * 3, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    ids = tokenizer.get_vocab()
    return sorted(ids, key=lambda token: (len(token) == 1, ids[token]))


TOKENS = [*_CONTROL, *_USER_DEFINED, *_BYTES, *_learnt_tokens()]


def tokenizer_metadata() -> dict[str, Any]:
    """Return the tokenizer of the tiny Gemma as the header of a GGUF file describes it."""
    types = dict.fromkeys(TOKENS, TokenType.NORMAL) | dict.fromkeys(_CONTROL, TokenType.CONTROL)
    types |= dict.fromkeys(_USER_DEFINED, TokenType.USER_DEFINED) | dict.fromkeys(_BYTES, TokenType.BYTE)
    unscored = {TokenType.CONTROL: -1000.0, TokenType.USER_DEFINED: -1000.0, TokenType.BYTE: 0.0}
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [token.replace(SPACE, " ") if token in _USER_DEFINED else token for token in TOKENS],
        "tokenizer.ggml.token_type": [int(types[token]) for token in TOKENS],
        "tokenizer.ggml.scores": [unscored.get(types[token], -float(index)) for index, token in enumerate(TOKENS)],
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }


def sentencepiece_ids(text: str) -> list[int]:
    """Encode as SentencePiece: take what the user defined, join the best neighbours of the rest, leftmost first."""
    ids = {token: index for index, token in enumerate(TOKENS)}
    scores = {token: -index for token, index in ids.items() if token not in {*_CONTROL, *_USER_DEFINED, *_BYTES}}
    whole = sorted(_CONTROL + _USER_DEFINED, key=len, reverse=True)
    found = ["<bos>"]
    for index, part in enumerate(re.split(f"({'|'.join(map(re.escape, whole))})", text.replace(" ", SPACE))):
        if index % 2 == 1:  # what the parentheses matched
            found.append(part)
            continue
        symbols = list(part)
        while True:
            joined = [left + right for left, right in pairwise(symbols)]
            best = max(joined, key=lambda token: scores.get(token, -len(TOKENS)), default="")
            if best not in scores:
                break
            at = joined.index(best)
            symbols[at : at + 2] = [best]
        for symbol in symbols:
            found += [symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return [ids[token] for token in found]


def write_tiny_gemma(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """Write configuration and weights of a random Gemma 3 in bfloat16 and return `folder`."""
    sizes: dict[str, Any] = {
        "vocab_size": len(TOKENS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 8,
        "max_position_embeddings": 512,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma3_text", **(sizes | config)))
    randomise(model, seed)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder
