"""Writes small random language models with a tokenizer and a chat template, so that tests need no download.

The weights are random but scaled so that logits differ by a few nats; norms and biases are random too, because values
of one and zero would hide an operation that is left out.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_SENTENCES = [
    "x x x x x x x x x x x x x x x x x x x x",  # GCG's usual start has one token per letter
    *["2024 2024 1987  12"] * 40,  # often enough for tokens of several digits
    "The patient asked the nurse about the new medicine, and the nurse said that it is safe.",
    "Write a short story about a small town where the river runs backwards in 1987.",
    "What is the capital of the country, and how many people live there today?",
    "Sure, here is the answer that you wanted: the value of x is 42 and y isn't known.",
    "I can't help with that, but I'll tell you what the doctors would say.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))\n",
]

# About 3 M parameters: the small model of the benchmarks.
SMALL_BENCHMARK_MODEL: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "vocab_size": 2048,
}


def write_tiny_llama(
    folder: Path,
    *,
    seed: int = 0,
    model_type: str = "llama",
    hidden_size: int = 32,
    intermediate_size: int = 64,
    num_hidden_layers: int = 2,
    num_attention_heads: int = 4,
    num_key_value_heads: int = 2,
    vocab_size: int = 320,
    unused_rows: int = 0,
    max_position_embeddings: int = 512,
    tie_word_embeddings: bool = True,
    pre_tokenizer: Literal["gpt2", "digits"] = "gpt2",
    chat_template: str | None = CHAT_TEMPLATE,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Path:
    """Write a random model of the llama family as transformers saves it, and return `folder`.

    The defaults give 24 k parameters, about 100 KB in all.

    Parameters
    ----------
    folder
        Created if needed. The same arguments write the same bytes.
    model_type
        `llama` or another family with the same configuration keys, e.g. `mistral`.
    vocab_size
        Rows of the embedding, of which the last `unused_rows` belong to no token.
    pre_tokenizer
        `digits` splits every digit off first, as SmolLM2 does.
    chat_template
        Jinja source, or None for a model without one.
    config
        Further configuration keys, e.g. `head_dim`, `attention_bias`, `rope_parameters`, `sliding_window`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(vocab_size - unused_rows, pre_tokenizer=pre_tokenizer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=max_position_embeddings,
    ).save_pretrained(folder)
    bos, eos = (tokenizer.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            model_type,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            num_key_value_heads=num_key_value_heads,
            vocab_size=vocab_size,
            max_position_embeddings=max_position_embeddings,
            tie_word_embeddings=tie_word_embeddings,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
            **config,
        )
    )
    randomise(model, seed)
    model.to(dtype).save_pretrained(folder)
    return folder


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Fill the parameters of a model: matrices keep the scale of what they multiply, norms stay near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                parameter.copy_(noise * (1.5 / parameter.shape[1] ** 0.5))
            else:
                parameter.copy_(noise * 0.2 + (0.0 if name.endswith("bias") else 1.0))


def train_tokenizer(vocab_size: int, *, pre_tokenizer: Literal["gpt2", "digits"] = "gpt2") -> Tokenizer:
    """Train a byte-level BPE tokenizer with exactly `vocab_size` tokens, special tokens included.

    Raises
    ------
    ValueError
        If the training text does not hold that many merges.
    """
    tokenizer = Tokenizer(BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES + _invented_text(vocab_size), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"[train_tokenizer] expected {vocab_size} tokens, the text gave {tokenizer.get_vocab_size()}")
    if pre_tokenizer == "digits":  # set after training: the vocabulary holds numbers, which only this splitting avoids
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    return tokenizer


def _invented_text(words: int) -> list[str]:
    """Sentences of invented words: what a vocabulary beyond a few hundred tokens is learnt from."""
    draw = random.Random(0)
    syllables = [first + vowel + last for first in "bdfklmnprst" for vowel in "aeiou" for last in ("", "n", "r")]
    vocabulary = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(words)]
    return [" ".join(draw.choices(vocabulary, k=12)) + "." for _ in range(words // 4)]
