"""The tokenizer against the `tokenizers` package: equal ids and text for every file that loads, or a refusal."""

import json
import pathlib
import random
import runpy
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

import titer
from tokenizer_cases import (
    GPT2_PATTERN,
    MARK,
    SPECIAL_TOKENS,
    SPLITTERS,
    TRAINED,
    byte_fallback_decoder,
    byte_level,
    corpus,
    digit_runs,
    gemma,
    gpt2,
    gpt4,
    gpt4o,
    gpt_neox,
    llama3,
    load_both,
    phi3,
    random_texts,
    replace,
    save_and_load_both,
    sentencepiece,
    split,
    stripping,
    tekken,
    train,
)

EVERY_CODE_POINT = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
ASSIGNED_PLANES = [c for c in EVERY_CODE_POINT if ord(c) < 0x40000 or 0xE0000 <= ord(c) < 0xE1000]


def gpt2_untrained():
    return train(byte_level(), vocab_size=259)


def metaspace_untrained():
    """Characters only, with a normalizer that changes added tokens."""
    vocab = {c: i for i, c in enumerate(f"?{MARK}abé<>_-٣\n")}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="?"))
    tokenizer.normalizer = normalizers.Sequence([replace("a", "b"), normalizers.NFC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


@pytest.fixture(scope="module", params=TRAINED, ids=lambda make: make.__name__)
def both(request, tmp_path_factory):
    return save_and_load_both(request.param(), tmp_path_factory.mktemp(request.param.__name__))


def assert_equal_ids(both, texts, add_special_tokens=True):
    theirs, ours = both
    expected = theirs.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
    for text, wanted, got in zip(texts, expected, ours.encode_batch(texts, add_special_tokens), strict=True):
        assert got == wanted.ids, repr(text)


def assert_equal_in_three_contexts(both, points, size=1024):
    """After a letter, after a space and after an apostrophe; before a space, a digit and a letter."""
    chunks = (points[i : i + size] for i in range(0, len(points), size))
    assert_equal_ids(both, ["".join(f"a{c} {c}1'{c}" for c in chunk) for chunk in chunks])


@pytest.mark.parametrize("make", TRAINED, ids=lambda make: make.__name__)
def test_ids_are_equal_for_every_code_point_in_three_contexts(make, tmp_path):
    points = EVERY_CODE_POINT if make in SPLITTERS else ASSIGNED_PLANES
    size = 64 if make in (stripping, gpt_neox) else 1024  # the peer is slow where it finds added tokens in long texts
    assert_equal_in_three_contexts(save_and_load_both(make(), tmp_path), points, size)


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


@pytest.mark.parametrize("make", [gpt2, digit_runs, llama3, gpt4, gpt4o, tekken], ids=lambda make: make.__name__)
def test_encoded_text_decodes_to_itself_where_every_byte_is_a_token(make, tmp_path):
    ours = save_and_load_both(make(), tmp_path)[1]
    for text in random_texts(1000, seed=3):
        assert ours.decode(ours.encode(text, False)) == text


def test_long_runs_take_no_quadratic_time(both):
    for part in ["a", "\n", "'", " \n", "1", "<0>  "]:
        assert len(both[1].encode(part * (300_000 // len(part)), False)) > 1000
    both[1].encode("\u0301" * 300_000)  # sorted by class; not every vocabulary has it


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_normal_forms_are_equal(form, tmp_path):
    """The ids are those of the bytes, so that any difference shows."""
    tokenizer = train(byte_level(regex=False), vocab_size=259)
    tokenizer.normalizer = getattr(normalizers, form)()
    pair = save_and_load_both(tokenizer, tmp_path)
    assert_equal_in_three_contexts(pair, EVERY_CODE_POINT)
    moving = [c for c in ASSIGNED_PLANES if unicodedata.combining(c) or unicodedata.decomposition(c)]
    moving += [chr(c) for c in (*range(0x1100, 0x1200), 0x11A7, 0x11C3, 0xAC00, 0xAC01, 0xD7A3, 0x09BE, 0x0DCF)] * 20
    rng = random.Random(8)
    assert_equal_ids(pair, ["".join(rng.choices(moving, k=rng.randrange(1, 30))) for _ in range(10_000)])


@pytest.mark.parametrize("make", TRAINED, ids=lambda make: make.__name__)
def test_added_tokens_are_found_as_tokenizers_finds_them(make, tmp_path):
    rng = random.Random(4)
    tokenizer = make()
    letters = "ab<|>" if make in (stripping, phi3) else "ab <|>\n"
    for _ in range(30):
        content = "".join(rng.choices(letters, k=rng.randrange(1, 6)))
        tokenizer.add_tokens([AddedToken(content, normalized=rng.random() < 0.5, special=rng.random() < 0.5)])
    pair = save_and_load_both(tokenizer, tmp_path)
    assert_equal_ids(pair, ["".join(rng.choices("ab <|>\nc", k=40)) for _ in range(1000)])


def test_added_tokens_look_at_the_text_around_them_as_in_tokenizers(tmp_path):
    rng = random.Random(7)
    for round_ in range(40):
        tokenizer = rng.choice([gpt2_untrained, metaspace_untrained])()
        flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
        known = set()
        for _ in range(8):
            content = "".join(rng.choices("abé<>", k=rng.randrange(1, 4)))
            content += " " * (rng.random() < 0.3) + "b" * (rng.random() < 0.5)
            if content.replace("a", "b") in known:  # tokenizers fails if two are the same once they are normalized
                continue
            known.add(content.replace("a", "b"))
            tokenizer.add_tokens([AddedToken(content, **{flag: rng.random() < 0.4 for flag in flags})])
        pair = save_and_load_both(tokenizer, tmp_path)
        texts = ["".join(rng.choices("aabé<>_-٣\u0301  \u00a0\n", k=30)) for _ in range(300)]
        assert_equal_ids(pair, texts)
        for _ in range(100):
            ids = [rng.randrange(pair[0].get_vocab_size()) for _ in range(6)]
            assert pair[1].decode(ids, True) == pair[0].decode(ids, True), (round_, ids)


@pytest.fixture(scope="module")
def document():
    return json.loads(train(byte_level(), vocab_size=300).to_str())


def load(document, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return titer.Tokenizer.from_file(str(path))


def component(value):
    return json.loads(value.__getstate__())


METASPACE = pre_tokenizers.Metaspace()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("normalizer", component(normalizers.NFD()), "normalizer.type"),
        ("normalizer", component(normalizers.Strip()), "normalizer.type"),
        ("normalizer", component(normalizers.Lowercase()), "normalizer.type"),
        ("normalizer", component(replace(Regex("a+"), "b")), "normalizer.pattern.Regex"),
        ("normalizer", component(normalizers.Sequence([normalizers.NFC(), normalizers.Nmt()])), "normalizers[1].type"),
        ("normalizer", component(replace("", "b")), "normalizer.pattern.String"),
        ("pre_tokenizer", component(pre_tokenizers.Whitespace()), "pre_tokenizer.type"),
        ("pre_tokenizer", component(split(r"\w+")), "pattern.Regex"),
        ("pre_tokenizer", component(split(GPT2_PATTERN, "removed")), "behavior"),
        ("pre_tokenizer", component(split(GPT2_PATTERN, "merged_with_next")), "behavior"),
        ("pre_tokenizer", component(pre_tokenizers.Split("a", "removed")), "behavior"),
        ("pre_tokenizer", component(pre_tokenizers.Split("a", "isolated", invert=True)), "invert"),
        ("pre_tokenizer", component(pre_tokenizers.Split("", "isolated")), "pattern.String"),
        ("pre_tokenizer", component(pre_tokenizers.Sequence([split(GPT2_PATTERN), METASPACE])), "pretokenizers[1]"),
        ("pre_tokenizer", component(pre_tokenizers.Sequence([METASPACE, byte_level()])), "pretokenizers[1]"),
        ("pre_tokenizer", {**component(METASPACE), "prepend_scheme": "second"}, "prepend_scheme"),
        ("pre_tokenizer", {**component(METASPACE), "replacement": "ab"}, "replacement"),
        ("pre_tokenizer", component(pre_tokenizers.Sequence([byte_level(), byte_level()])), "pretokenizers[1]"),
        ("pre_tokenizer", {"type": "ByteLevel", "trim_offsets": True}, "add_prefix_space"),
        ("pre_tokenizer", {**component(byte_level()), "other": 1}, "pre_tokenizer.other"),
        ("decoder", None, "decoder"),
        ("decoder", component(decoders.BPEDecoder()), "decoder.type"),
        ("decoder", component(decoders.Strip(" ", 0, 1)), "decoder.stop"),
        ("decoder", component(decoders.WordPiece()), "decoder.type"),
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


def test_white_space_tokens_beside_one_that_strips_it_are_refused(document, tmp_path):
    """`tokenizers` fails on texts in which such matches overlap."""
    changed = json.loads(json.dumps(document))
    changed["added_tokens"][0]["rstrip"] = True
    load(changed, tmp_path)
    changed["added_tokens"][1]["content"] = "  "
    changed["model"]["vocab"]["  "] = changed["model"]["vocab"].pop(SPECIAL_TOKENS[1])
    with pytest.raises(ValueError, match="rstrip"):
        load(changed, tmp_path)


def test_a_first_mark_is_refused_where_a_normalizer_could_move_it(tmp_path):
    tokenizer = sentencepiece(
        normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="first"), byte_fallback_decoder()
    )
    load(tokenizer.to_str(), tmp_path)
    tokenizer.add_tokens(["word"])
    with pytest.raises(ValueError, match="prepend_scheme"):
        load(tokenizer.to_str(), tmp_path)


def test_byte_fallback_without_all_bytes_is_refused(tmp_path):
    changed = json.loads(gemma().to_str())
    changed["model"]["vocab"]["instead"] = changed["model"]["vocab"].pop("<0x0A>")
    with pytest.raises(ValueError, match=r"model\.byte_fallback.*<0x0A>"):
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


@pytest.mark.parametrize("name", ["unicode_tables.inc", "normalization_tables.inc"])
def test_the_committed_unicode_tables_are_those_of_the_installed_tokenizers(name):
    core = pathlib.Path(__file__).parents[2] / "core"
    generator = runpy.run_path(str(core / "tools" / "generate_unicode_tables.py"))
    assert (core / "src" / name).read_text("utf-8") == generator["TABLES"][name]()
