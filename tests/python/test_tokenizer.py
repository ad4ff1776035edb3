"""The tokenizer against the `tokenizers` package: equal ids and text for every file that loads, or a refusal."""

import json
import pathlib
import random
import runpy
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

import titer

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(prefix=False, regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


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


# One file per splitter, which meets every code point, and some that combine them, which meet those that are assigned.
SPLITTERS = [gpt2, prefix_space, smollm2, llama3]
COMBINATIONS = [digit_runs, digits_and_prefix_space, split_gpt2_with_unknown]
TRAINED = SPLITTERS + COMBINATIONS
EVERY_CODE_POINT = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
ASSIGNED_PLANES = [c for c in EVERY_CODE_POINT if ord(c) < 0x40000 or 0xE0000 <= ord(c) < 0xE1000]


def load_both(path):
    """The peer and ours, from one file."""
    return tokenizers.Tokenizer.from_file(str(path)), titer.Tokenizer.from_file(str(path))


def save_and_load_both(tokenizer, folder):
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_both(folder / "tokenizer.json")


@pytest.fixture(scope="module", params=TRAINED, ids=lambda make: make.__name__)
def both(request, tmp_path_factory):
    return save_and_load_both(request.param(), tmp_path_factory.mktemp(request.param.__name__))


def assert_equal_ids(both, texts, add_special_tokens=True):
    theirs, ours = both
    expected = theirs.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
    for text, wanted, got in zip(texts, expected, ours.encode_batch(texts, add_special_tokens), strict=True):
        assert got == wanted.ids, repr(text)


def random_texts(count, seed):
    """Strings that put the borders of the splitters next to each other."""
    rng = random.Random(seed)
    parts = [
        *"abzAZ019 '.,-_\n\r\t\v\x00\x7f",
        *"éßſKİıΣ東한ש٣³½Ⅷ\u0085\u00a0\u180e\u2028\u3000\u200d\ufeff\U0001f600\U00011de0\U0010ffff",
        *["'s", "'LL", "'ve", "'R", "'ſ", "  ", " \n", "\r\n", "\n\n\n", "123", "1234567", " the", "The", "return"],
        *SPECIAL_TOKENS,
        *["<|", "|>", "<|im", "<|begin_of_text|>", "two words", "Ġthe"],
    ]
    for _ in range(count):
        text = "".join(rng.choices(parts, k=rng.randrange(25)))
        if rng.random() < 0.2:
            points = [
                rng.randrange(0x3000) if rng.random() < 0.8 else rng.randrange(0xE000, 0x110000) for _ in range(4)
            ]
            text += "".join(map(chr, points)) + text[::-1]
        yield text


def assert_equal_in_three_contexts(both, points, size=1024):
    """After a letter, after a space and after an apostrophe; before a space, a digit and a letter."""
    chunks = (points[i : i + size] for i in range(0, len(points), size))
    assert_equal_ids(both, ["".join(f"a{c} {c}1'{c}" for c in chunk) for chunk in chunks])


@pytest.mark.parametrize("make", TRAINED, ids=lambda make: make.__name__)
def test_ids_are_equal_for_every_code_point_in_three_contexts(make, tmp_path):
    points = EVERY_CODE_POINT if make in SPLITTERS else ASSIGNED_PLANES
    assert_equal_in_three_contexts(save_and_load_both(make(), tmp_path), points)


def test_ids_are_equal_for_random_texts(both):
    texts = list(random_texts(10_000, seed=1))
    assert_equal_ids(both, texts)
    assert_equal_ids(both, texts[:1000], add_special_tokens=False)


def test_ids_are_equal_for_prose(both):
    assert_equal_ids(both, list(corpus()))


def test_contractions_are_equal_for_all_letters(both):
    endings = [
        a + b for a in "abcdefghijklmnopqrstuvwxyzSTMDRVLEſK1 '\n" for b in ["", *"abcdefghijklmnopqrstuvwxyzEL1 '\n"]
    ]
    assert_equal_ids(both, [f"x'{ending}" for ending in endings] + [f" '{ending}y" for ending in endings])


def test_decoded_text_is_equal(both):
    theirs, ours = both
    rng = random.Random(2)
    size = theirs.get_vocab_size() + 3  # a few ids that belong to no token
    for _ in range(3000):
        ids = [rng.randrange(size if rng.random() < 0.5 else 300) for _ in range(rng.randrange(12))]
        for skip_special_tokens in (False, True):
            assert ours.decode(ids, skip_special_tokens) == theirs.decode(ids, skip_special_tokens), ids


@pytest.mark.parametrize("make", [gpt2, digit_runs, llama3], ids=lambda make: make.__name__)
def test_encoded_text_decodes_to_itself_where_every_byte_is_a_token(make, tmp_path):
    ours = save_and_load_both(make(), tmp_path)[1]
    for text in random_texts(1000, seed=3):
        assert ours.decode(ours.encode(text, False)) == text


def test_long_runs_take_no_quadratic_time(both):
    for text in ["a" * 1_000_000, "\n" * 1_000_000, "'" * 1_000_000, " \n" * 500_000, "1" * 1_000_000]:
        assert len(both[1].encode(text, False)) > 1000


@pytest.mark.parametrize("make", TRAINED, ids=lambda make: make.__name__)
def test_added_tokens_are_found_as_tokenizers_finds_them(make, tmp_path):
    rng = random.Random(4)
    tokenizer = make()
    for _ in range(30):
        content = "".join(rng.choices("ab <|>\n", k=rng.randrange(1, 6)))
        tokenizer.add_tokens([AddedToken(content, normalized=rng.random() < 0.5, special=rng.random() < 0.5)])
    pair = save_and_load_both(tokenizer, tmp_path)
    assert_equal_ids(pair, ["".join(rng.choices("ab <|>\nc", k=40)) for _ in range(1000)])


@pytest.fixture(scope="module")
def document():
    return json.loads(train(byte_level(), vocab_size=300).to_str())


def load(document, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return titer.Tokenizer.from_file(str(path))


def component(value):
    return json.loads(value.__getstate__())


TWO_DECODERS = {"type": "Sequence", "decoders": [component(decoders.ByteLevel()), component(decoders.Fuse())]}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("normalizer", component(normalizers.NFC()), "normalizer.type"),
        ("pre_tokenizer", None, "pre_tokenizer"),
        ("pre_tokenizer", component(pre_tokenizers.Whitespace()), "pre_tokenizer.type"),
        ("pre_tokenizer", component(split(r"\w+")), "pattern.Regex"),
        ("pre_tokenizer", component(split(GPT2_PATTERN)), "ByteLevel"),
        ("pre_tokenizer", component(pre_tokenizers.Split(Regex(GPT2_PATTERN), "removed")), "behavior"),
        ("pre_tokenizer", component(pre_tokenizers.Split(Regex(GPT2_PATTERN), "isolated", invert=True)), "invert"),
        ("pre_tokenizer", component(pre_tokenizers.Split("a", "isolated")), "pattern.String"),
        ("pre_tokenizer", component(pre_tokenizers.Sequence([byte_level(), byte_level()])), "pretokenizers[1]"),
        ("pre_tokenizer", {"type": "ByteLevel", "trim_offsets": True}, "add_prefix_space"),
        ("pre_tokenizer", {**component(byte_level()), "other": 1}, "pre_tokenizer.other"),
        ("decoder", None, "decoder"),
        ("decoder", component(decoders.BPEDecoder()), "decoder.type"),
        ("decoder", TWO_DECODERS, "decoder.decoders"),
        ("post_processor", component(processors.BertProcessing(("a", 1), ("b", 2))), "post_processor.type"),
        ("truncation", {"max_length": 3, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}, "truncation"),
        ("padding", {"strategy": "BatchLongest"}, "padding"),
        ("version", "2.0", "version"),
        ("model.type", "WordPiece", "model.type"),
        ("model.dropout", 0.1, "model.dropout"),
        ("model.byte_fallback", True, "model.byte_fallback"),
        ("model.end_of_word_suffix", "</w>", "model.end_of_word_suffix"),
        ("model.continuing_subword_prefix", "##", "model.continuing_subword_prefix"),
        ("model.merges", [["q", "nonexistent"]], "nonexistent"),
        ("model.merges", [["q", "q"]], "'qq'"),
        ("model.merges", ["a b c"], "model.merges[0]"),
        ("model.vocab", {"a": 0, "b": 0}, "two tokens"),
        ("model.vocab", {"a": 2**31}, "model.vocab.a"),
        ("model.vocab", {"a": 2**30}, "far beyond"),
        ("model.vocab", {"a": -1}, "model.vocab.a"),
        ("surprise", 1, "surprise"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(document, tmp_path, key, value, named):
    changed = json.loads(json.dumps(document))
    *parents, last = key.split(".")
    target = changed
    for parent in parents:
        target = target[parent]
    target[last] = value
    with pytest.raises(ValueError) as error:
        load(changed, tmp_path)
    assert named in str(error.value)
    assert str(error.value).startswith("[tokenizer]")
    assert "tokenizer.json" in str(error.value)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_that_strip_are_refused(document, tmp_path, flag):
    changed = json.loads(json.dumps(document))
    changed["added_tokens"][0][flag] = True
    with pytest.raises(ValueError, match=rf"added_tokens\[0\].{flag}"):
        load(changed, tmp_path)


def test_an_added_token_whose_id_tokenizers_would_not_use_is_refused(document, tmp_path):
    changed = json.loads(json.dumps(document))
    changed["added_tokens"].append({**changed["added_tokens"][0], "content": "<new>", "id": 5000})
    peer = tokenizers.Tokenizer.from_str(json.dumps(changed))
    assert peer.token_to_id("<new>") == len(changed["model"]["vocab"]) == 300
    with pytest.raises(ValueError, match="must be 300"):
        load(changed, tmp_path)


def test_broken_files_raise_the_right_exception(tmp_path):
    with pytest.raises(FileNotFoundError):
        titer.Tokenizer.from_file(str(tmp_path / "missing.json"))
    for text in ["", "{", "[]", '{"model": 1}', '{"model": {"type": "BPE"}}', "{}", '{"version": null}']:
        with pytest.raises(ValueError, match=r"tokenizer\.json"):
            load(text, tmp_path)


def test_negative_ids_are_refused(both):
    with pytest.raises(IndexError, match="-1"):
        both[1].decode([1, -1])


def test_threads_share_a_tokenizer(both):
    texts = list(random_texts(500, seed=5))
    expected = both[1].encode_batch(texts)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: [both[1].encode(text) for text in texts], range(8)):
            assert got == expected


def test_the_real_smollm2_is_equal(smollm2_folder):
    both = load_both(smollm2_folder / "tokenizer.json")
    assert_equal_in_three_contexts(both, EVERY_CODE_POINT)
    assert_equal_ids(both, list(corpus()) + list(random_texts(10_000, seed=6)))


def test_the_committed_unicode_tables_are_those_of_the_installed_tokenizers():
    core = pathlib.Path(__file__).parents[2] / "core"
    generator = runpy.run_path(str(core / "tools" / "generate_unicode_tables.py"))
    assert (core / "src" / "unicode_tables.inc").read_text("utf-8") == generator["generate"]()
