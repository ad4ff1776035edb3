"""Tokenizers of every supported shape, trained here on a little text, and texts that are hard to cut."""

import json
import pathlib
import random
import runpy

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

import titer

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4_PATTERN = (  # the same as Llama 3's in tiktoken's words
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_PATTERN = GPT4O_PATTERN.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace(r"\p{N}{1,3}", r"\p{N}")
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(prefix=False, regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert=invert)


def corpus():
    """English prose, Python source and a little of other scripts, the same on every machine with this Python."""
    source = pathlib.Path(json.__file__).parent
    yield from "".join(path.read_text("utf-8") for path in sorted(source.glob("*.py"))).split("\n\n")
    yield from (runpy.__doc__ * 20, "the patient's dose isn't 12345 mg; they'll re-check it, we've said so. " * 40)
    yield from ("Größe 3½ m² naïve café Привет мир 東京 こんにちは 안녕 עברית ١٢٣ १२३ 😀👍🏽\u200d " * 40,)
    yield from ("   indented\n\n\ttabs\r\n\r\n  \u00a0 \u3000 spaces   \n" * 40,)


def train(pre_tokenizer, all_bytes=True, vocab_size=1500, **model):
    tokenizer = tokenizers.Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if all_bytes else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def gpt2():
    tokenizer = train(byte_level())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def prefix_space():
    return train(byte_level(prefix=True))


def smollm2():
    """As SmolLM2: single digits, and a vocabulary in which some bytes are missing."""
    return train(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]), all_bytes=False
    )


def digit_runs():
    return train(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), byte_level()]))


def digits_and_prefix_space():
    digits = pre_tokenizers.Digits(individual_digits=True)
    return train(pre_tokenizers.Sequence([digits, byte_level(prefix=True)]))


def llama3():
    tokenizer = train(pre_tokenizers.Sequence([split(LLAMA3_PATTERN), byte_level(regex=False)]), ignore_merges=True)
    bos = "<|begin_of_text|>"
    tokenizer.add_special_tokens([bos])
    template = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def split_gpt2_with_unknown():
    """Missing bytes become a token; added tokens that are not special, contain spaces or start alike."""
    tokenizer = train(
        pre_tokenizers.Sequence([split(GPT2_PATTERN), byte_level(regex=False)]),
        all_bytes=False,
        unk_token="<|endoftext|>",
        fuse_unk=True,
    )
    tokenizer.add_tokens(["two words", "  ", "     ", "é", "Ġthe", AddedToken("<|im", normalized=False)])
    tokenizer.add_special_tokens(["<|im_end|><|im", "\n\n"])
    return tokenizer


def train_split(*steps, normalizer=None, **model):
    tokenizer = train(pre_tokenizers.Sequence([*steps, byte_level(regex=False)]), **model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def qwen2():
    return train_split(split(QWEN2_PATTERN), normalizer=normalizers.NFC())


def qwen35():
    return train_split(split(QWEN35_PATTERN), normalizer=normalizers.Sequence([normalizers.NFC()]))


def gpt4():
    return train_split(split(GPT4_PATTERN, "removed", invert=True), ignore_merges=True)


def gpt4o():
    return train_split(split(GPT4O_PATTERN))


def tekken():
    return train_split(split(TEKKEN_PATTERN), ignore_merges=True)


def gpt_neox():
    """Runs of spaces are added tokens that are looked for in the normalized text."""
    tokenizer = train(byte_level())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([" " * n for n in range(2, 25)] + ["e\u0301\u0301"])
    return tokenizer


def strings():
    return train_split(
        pre_tokenizers.Split("the", "merged_with_next"),
        pre_tokenizers.Split("  ", "contiguous"),
        pre_tokenizers.Split("\n", "isolated"),
        pre_tokenizers.Split(".", "merged_with_previous"),
        normalizer=normalizers.Replace("''", '"'),
    )


def stripping():
    """Added tokens that look at the text around them."""
    tokenizer = train(byte_level())
    flags = [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"single_word": True, "lstrip": True}]
    for i, flag in enumerate(flags):
        tokenizer.add_tokens([AddedToken(f"<{i}>", normalized=False, **flag), AddedToken(f"[{i}]", **flag)])
    tokenizer.add_tokens([AddedToken("the", single_word=True), AddedToken("1", single_word=True, rstrip=True)])
    return tokenizer


MARK = "\u2581"


def sentencepiece(
    normalizer, pre_tokenizer, decoder, byte_fallback=True, fuse_unk=True, ignore_merges=False, template=True
):
    """A vocabulary of characters and words, with byte tokens, as converted from a SentencePiece model."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse_unk, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    names = ["<unk>", "<s>", "</s>", *SPECIAL_TOKENS]
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    if template:
        bos = ("<s>", tokenizer.token_to_id("<s>"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[bos]
        )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    document = json.loads(tokenizer.to_str())
    vocab = document["model"]["vocab"]
    for extra in [*(f"<0x{byte:02X}>" for byte in range(256)), "\n", "\n\n", MARK * 2, MARK * 4, f">{MARK}"]:
        vocab.setdefault(extra, len(vocab))
    document["model"]["merges"] += [["\n", "\n"], [MARK, MARK], [MARK * 2, MARK * 2], [">", MARK]]
    document["model"]["byte_fallback"] = byte_fallback
    return tokenizers.Tokenizer.from_str(json.dumps(document))


def replace(pattern, content):
    return normalizers.Replace(pattern, content)


def byte_fallback_decoder(*strip):
    return decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])


def llama2():
    steps = [normalizers.Prepend(MARK), replace(" ", MARK)]
    tokenizer = sentencepiece(normalizers.Sequence(steps), None, byte_fallback_decoder(decoders.Strip(" ", 1, 0)))
    tokenizer.add_tokens([AddedToken("two words", special=True), AddedToken("<0x41>", normalized=False)])
    return tokenizer


def mistral():
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer = sentencepiece(None, metaspace, byte_fallback_decoder(decoders.Strip(" ", 1, 0)))
    tokenizer.add_tokens(["two words", "     "])
    return tokenizer


def gemma():
    space = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer = sentencepiece(replace(" ", MARK), space, byte_fallback_decoder())
    tokenizer.add_tokens([AddedToken("\n" * n, normalized=False) for n in range(2, 6)])
    return tokenizer


def phi3():
    """Special tokens that take the white space after them."""
    tokenizer = llama2()
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", rstrip=True) for name in ("user", "end", "assistant")])
    return tokenizer


def metaspace_always():
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    decoder = decoders.Metaspace(prepend_scheme="always")
    return sentencepiece(normalizers.NFKC(), metaspace, decoder, byte_fallback=False, fuse_unk=False)


def metaspace_never():
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    steps = pre_tokenizers.Sequence([metaspace, pre_tokenizers.Digits(individual_digits=True), split(GPT2_PATTERN)])
    normalizer = normalizers.Sequence([normalizers.NFKC(), replace("\t", "    "), replace("x", "")])
    return sentencepiece(normalizer, steps, decoders.Metaspace(prepend_scheme="never"), ignore_merges=True)


# Files that meet every code point, and others that meet those that are assigned.
SPLITTERS = [gpt2, prefix_space, smollm2, llama3, gpt4o]
COMBINATIONS = [digit_runs, digits_and_prefix_space, split_gpt2_with_unknown, gpt4, qwen2, qwen35, tekken, gpt_neox]
COMBINATIONS += [strings, stripping, llama2, mistral, gemma, phi3, metaspace_always, metaspace_never]
TRAINED = SPLITTERS + COMBINATIONS


def load_both(path):
    """The peer and ours, from one file."""
    return tokenizers.Tokenizer.from_file(str(path)), titer.Tokenizer.from_file(str(path))


def save_and_load_both(tokenizer, folder):
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_both(folder / "tokenizer.json")


def random_texts(count, seed):
    """Strings that put the borders of the splitters next to each other."""
    rng = random.Random(seed)
    parts = [
        *"abzAZ019 '.,-_\n\r\t\v\x00\x7f",
        *"éßſKİıΣ東한ש٣³½Ⅷ\u0085\u00a0\u180e\u2028\u3000\u200d\ufeff\U0001f600\U00011de0\U0010ffff",
        *["'s", "'LL", "'ve", "'R", "'ſ", "  ", " \n", "\r\n", "\n\n\n", "123", "1234567", " the", "The", "return"],
        *SPECIAL_TOKENS,
        *["<|", "|>", "<|im", "<|begin_of_text|>", "two words", "Ġthe"],
        *["\u2581", "\u2581the", "<s>", "</s>", "<unk>", "<0x41>", "<0>", "<1>", "[1]", "[2]", "<3>", "<|user|>"],
        *["''", "x", "HTTPServer", "Ǆ", "ǅ", "ʰ", "ª", "/", "ﬁ", "ﷺ", "Å", "①", "e\u0301", "\u0301\u0323", "\u0345"],
        *["\u09c7\u09be", "\u1100", "\u1161", "\u11a7", "\u11a8", "가", "각", "\u0f71\u0f72", "\u0344", "\u2126"],
        *["\u200d", "\U0001d15e"],
    ]
    for _ in range(count):
        text = "".join(rng.choices(parts, k=rng.randrange(25)))
        if rng.random() < 0.2:
            points = [
                rng.randrange(0x3000) if rng.random() < 0.8 else rng.randrange(0xE000, 0x110000) for _ in range(4)
            ]
            text += "".join(map(chr, points)) + text[::-1]
        yield text
