"""The tokenizer of the clinic's models: byte-level BPE in which every word and number of the world is one token.

Every word has two tokens, behind a space and without one, and no merges lead to them: with `ignore_merges` a word that
is in the vocabulary stands for itself. Any other text falls to its bytes, so that nothing is unknown. The chat template
writes a space in front of every turn, so that a name is the same token in notes, questions and answers: what a small
model copies, it finds by its token.
"""

from __future__ import annotations

import json
from pathlib import Path

from titer.clinic.vocabulary import Vocabulary

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL_TOKENS = (END, USER, ASSISTANT)  # their ids are 0, 1 and 2

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('turns are the user\\'s or the assistant\\'s, got ' + message.role) }}"
    "{% endif %}"
    "{{ '<|' + message.role + '|> ' + message.content + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def token_ids(words: Vocabulary) -> dict[str, int]:
    """Return the vocabulary of the tokenizer: special tokens, the 256 bytes, then words without and with a space.

    Examples
    --------
    >>> from titer.clinic import World
    >>> from titer.clinic_models.tokenizer import token_ids
    >>> ids = token_ids(World().vocabulary())
    >>> ids["<|end|>"], ids["Ġberein"] - ids["berein"]
    (0, 1)
    """
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*SPECIAL_TOKENS, *sorted(ByteLevel.alphabet())]
    for word in words.all:
        tokens += [word, "Ġ" + word]  # the letter of a space
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def write_tokenizer(folder: Path, words: Vocabulary) -> int:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`; return the size of the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    ids = token_ids(words)
    tokenizer = Tokenizer(BPE(vocab=ids, merges=[], ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "clean_up_tokenization_spaces": False,
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    return len(ids)
