"""A model that says what a test wants it to say, whatever it reads."""

from __future__ import annotations

import torch

import titer
from model_cases import make_module

PROMPT = [3, 4, 5]  # tokens that it continues
_LENGTH = 128  # of prompt and script


def scripted_model(script: list[int], tokenizer: titer.Tokenizer, *, eos_token_id: int | None = None) -> titer.Model:
    """Return a model that continues a prompt as long as `PROMPT` greedily with `script`.

    What it says depends on the position alone: one dimension per position, which the head maps to the token there.
    """
    module = make_module(
        model_type="gpt2",
        hidden_size=_LENGTH,
        max_position_embeddings=_LENGTH,
        vocab_size=tokenizer.vocab_size,
        tie_word_embeddings=False,
        eos_token_id=eos_token_id,
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.transformer.wpe.weight.copy_(torch.eye(_LENGTH))
        module.transformer.ln_f.weight.fill_(1)
        for i, token in enumerate(script):
            module.lm_head.weight[token, len(PROMPT) - 1 + i] = 1
    return titer.load_model(module, tokenizer=tokenizer)
