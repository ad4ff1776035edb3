"""Tokenizers whose parts contradict each other, cannot be computed, or are not supported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad_inputs.row import Row, edit, write

_FILE = "tokenizer.json"
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_MANY = [{"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}] * 1000 + [{"Sequence": {"id": "A", "type_id": 0}}]


def _template(**changes: Any) -> dict[str, Any]:
    token = {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]}
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<|im_end|>": token},
    } | changes


# Changes to the file, and what the message must hold.
_CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("no model", {"model": ...}, "key 'model' is missing"),
    ("a model that is a list", {"model": []}, "'model' must be an object"),
    ("WordPiece", {"model.type": "WordPiece"}, r"'model\.type' is 'WordPiece', which is not supported"),
    ("Unigram", {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.0]]}}, r"'model\.type' is 'Unigram'"),
    ("a type of 10 MB", {"model.type": "B" * 10_000_000}, r"'model\.type' is 'B+\.\.\.'"),
    ("an unknown key", {"surprise": 1}, "key 'surprise' is not supported"),
    ("a key of 10 MB", {"k" * 10_000_000: 1}, r"key 'k+\.\.\.' is not supported"),
    ("a key with a line break", {"a\n\x1b[31mb": 1}, r"key 'a\\x0a\\x1b\[31mb' is not supported"),
    ("version 2", {"version": "2.0"}, "'version' is '2.0'"),
    ("truncation", {"truncation": {"max_length": 3, "stride": 0, "strategy": "LongestFirst"}}, "'truncation' is"),
    ("padding", {"padding": {"strategy": "BatchLongest"}}, "'padding' is"),
    ("dropout", {"model.dropout": 0.1}, r"'model\.dropout' is 0.1"),
    ("a suffix", {"model.end_of_word_suffix": "</w>"}, r"'model\.end_of_word_suffix' is '</w>'"),
    ("byte fallback beside byte level", {"model.byte_fallback": True}, r"'model\.byte_fallback' is true"),
    ("an unknown token that is none", {
        "model.unk_token": "<none>", "model.vocab": {"a": 0}, "model.merges": [], "added_tokens": []},
     r"'model\.unk_token' is '<none>'"),
    # ids
    ("an empty vocabulary", {"model.vocab": {}}, r"'added_tokens\[0\]\.id' must be|'model\.merges\[0\]' needs"),
    ("a vocabulary that is a list", {"model.vocab": ["a"]}, r"'model\.vocab' must be an object"),
    ("two tokens of one id", {"model.vocab.a": 0}, "id 0 belongs to two tokens"),
    ("an id below 0", {"model.vocab.a": -1}, r"'model\.vocab\.a' must be an id"),
    ("an id of -0.0", {"model.vocab.a": -0.0}, r"'model\.vocab\.a' must be an id"),
    ("an id that is a string", {"model.vocab.a": "7"}, r"'model\.vocab\.a' must be an id"),
    ("an id of 2^31", {"model.vocab.a": 2**31}, r"'model\.vocab\.a' must be an id from 0 to 2\^31 - 2"),
    ("an id of 10^12", {"model.vocab.a": 10**12}, r"'model\.vocab\.a' must be an id"),
    ("an id of 2^64", {"model.vocab.a": 2**64}, r"'model\.vocab\.a' must be an id"),
    ("a hole of a billion ids", {"model.vocab.a": 10**9}, "has the id 1000000000, far beyond the"),
    # merges
    ("no merges", {"model.merges": ...}, r"'model\.merges' is missing"),
    ("merges that are an object", {"model.merges": {}}, r"'model\.merges' must be an array"),
    ("a merge of a token that is missing", {"model.merges.0": ["q", "absent"]}, r"'model\.merges\[0\]' needs 'absent'"),
    ("a merge to a token that is missing", {"model.merges": [["q", "q"]]}, r"'model\.merges\[0\]' needs 'qq'"),
    ("a merge of an added token", {"model.merges": [["<|im_end|>", "a"]]}, r"'model\.merges\[0\]' needs '<|im_end|>a'"),
    ("a merge of three", {"model.merges": [["a", "b", "c"]]}, r"'model\.merges\[0\]' must be an array of two strings"),
    ("a merge of one", {"model.merges": [["a"]]}, r"'model\.merges\[0\]' must be an array of two strings"),
    ("a merge of a string and a number", {"model.merges": [["a", 1]]},
     r"'model\.merges\[0\]' must be an array of two strings"),
    ("a pair among lines", {"model.merges": ["e r", ["t", "h"]]},
     r"'model\.merges\[1\]' must be a string as the first entry is, got an array of 2"),
    ("a merge of numbers", {"model.merges": [[1, 2]]}, r"'model\.merges\[0\]' must be an array of two strings"),
    ("a merge of nothing", {"model.merges": [["", "a"]]}, r"'model\.merges\[0\]' merges an empty token"),
    ("a line of three", {"model.merges": ["a b c"]}, r"'model\.merges\[0\]' must be two tokens with a space"),
    ("a line of one", {"model.merges": ["ab"]}, r"'model\.merges\[0\]' must be two tokens with a space"),
    ("two kinds of merges", {"model.merges.1": "t h"},
     r"'model\.merges\[1\]' must be an array of two strings as the first"),
    ("a merge of 10 MB", {"model.merges": ["q" * 10_000_000]}, r"'model\.merges\[0\]' must be two tokens.*\.\.\."),
    ("300,000 merges, then a bad one", {"model.merges": [["e", "r"]] * 300_000 + [["e", "absent"]]},
     r"'model\.merges\[300000\]' needs 'absent'|'model\.merges\[0\]' needs"),
    # added tokens
    ("added tokens that are an object", {"added_tokens": {}}, "'added_tokens' must be an array"),
    ("an added token that is a string", {"added_tokens": ["<x>"]}, r"'added_tokens\[0\]' must be an object"),
    ("an added token without text", {"added_tokens.0.content": ""}, r"'added_tokens\[0\]\.content' must not be empty"),
    ("an added token of 10 MB", {"added_tokens.0.content": "x" * 10_000_000},
     "must be at most 1024 bytes, got 10000000"),
    ("an added token of another id", {"added_tokens.0.id": 7}, r"'added_tokens\[0\]\.id' must be 0"),
    ("an added token of a huge id", {"added_tokens.0.id": 10**12}, r"'added_tokens\[0\]\.id' must be an id"),
    ("an added token twice", {"added_tokens.1.content": "<|endoftext|>", "added_tokens.1.id": 0}, "again"),
    ("added tokens that swap ids", {"added_tokens.0.id": 1, "added_tokens.1.id": 0},
     r"'added_tokens\[0\]\.id' must be 0"),
    ("a new token far off", {"added_tokens": [{"id": 10**6, "content": "<new>", **_ADDED}]}, "must be 320 for '<new>'"),
    ("an added token without flags", {"added_tokens": [{"id": 0, "content": "<|endoftext|>"}]}, "is missing"),
    ("an added token with more flags", {"added_tokens.0.code": "x"}, r"key 'added_tokens\[0\]\.code' is not supported"),
    ("an added token of a lone mark", {"added_tokens.0.special": 1}, r"'added_tokens\[0\]\.special' is 1"),
    # normalizers
    ("a normalizer that is a string", {"normalizer": "NFC"}, "'normalizer' must be an object"),
    ("Lowercase", {"normalizer": {"type": "Lowercase"}}, r"'normalizer\.type' is 'Lowercase'"),
    ("Precompiled", {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "'Precompiled'"),
    ("Replace of nothing", {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}},
     r"'normalizer\.pattern\.String' is ''"),
    ("Replace of a regular expression", {"normalizer": {
        "type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
     r"'normalizer\.pattern\.Regex' is not supported"),
    ("Replace by 10 MB", {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "x" * 10_000_000}},
     r"'normalizer\.content' must be at most 64 bytes"),
    ("Replace that doubles, often", {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 12}}, "makes texts more than 64 times"),
    ("100,000 normalizers", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 100_000}},
     "makes texts more than 64 times|at most 16 steps"),
    # pre-tokenizers
    ("Split by an unknown expression", {"pre_tokenizer": {
        "type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}},
         r"pattern\.Regex' is"),
    ("Split by nothing", {"pre_tokenizer": {
        "type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False}},
         r"pattern\.String' is ''"),
    ("Split by two patterns", {"pre_tokenizer": {
        "type": "Split", "pattern": {"String": "a", "Regex": "b"}, "behavior": "Isolated", "invert": False}},
         "one key"),
    ("Whitespace", {"pre_tokenizer": {"type": "Whitespace"}}, r"'pre_tokenizer\.type' is 'Whitespace'"),
    ("17 steps", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}] * 17}}, "at most 16 steps"),
    ("two ByteLevel", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [_BYTE_LEVEL] * 2}}, "must be the last"),
    # decoders and post-processors
    ("no decoder", {"decoder": None}, "'decoder' must be an object"),
    ("an unknown decoder", {"decoder": {"type": "CTC"}}, r"'decoder\.type' is 'CTC'"),
    ("Strip of a billion", {"decoder": {"type": "Strip", "content": " ", "start": 0, "stop": 10**9}},
     r"'decoder\.stop'"),
    ("an unknown post-processor", {"post_processor": {"type": "BertProcessing"}}, "'BertProcessing'"),
    ("a template with an unknown token", {"post_processor": _template(special_tokens={})}, "needs '<|im_end|>'"),
    ("a template with an unknown id", {"post_processor": _template(
        special_tokens={"<|im_end|>": {"id": "x", "ids": [5000], "tokens": ["x"]}})},
         "5000, which is the id of no token"),
    ("a template without the text", {"post_processor": _template(single=[])}, "must contain the 'Sequence' 'A'"),
    ("a template with the text twice", {"post_processor": _template(
        single=[{"Sequence": {"id": "A", "type_id": 0}}] * 2)}, "'A', once"),
    ("two templates", {"post_processor": {"type": "Sequence", "processors": [_template()] * 2}}, "a second 'Template"),
    ("a template of a billion ids", {"post_processor": _template(
        single=_MANY, special_tokens={"<|im_end|>": {"id": "x", "ids": [2] * 1_000_000, "tokens": ["x"]}})},
     "more than 1024 special tokens"),
]  # fmt: skip


def _nested(key: str, kind: str, inner: str) -> Callable[[Path], None]:
    """Put a part into 25 sequences: fewer levels than JSON may have, and their names stand in the message."""
    part: dict[str, Any] = {"type": "Absent"}
    for _ in range(25):
        part = {"type": kind, inner: [part]}
    return edit(_FILE, {key: part})


def _byte_fallback(folder: Path) -> None:
    document = json.loads((folder / _FILE).read_text())
    document["pre_tokenizer"] = None
    document["decoder"] = {"type": "Fuse"}
    document["model"]["byte_fallback"] = True
    (folder / _FILE).write_text(json.dumps(document))


def _many_tokens(folder: Path) -> None:
    vocabulary = {f"{index:x}": index for index in range(200_000)}
    edit(_FILE, {"model.vocab": vocabulary, "model.merges": [["0", "absent"]], "added_tokens": []})(folder)


def rows() -> Iterator[Row]:
    for what, changes, message in _CHANGES:
        yield Row(f"tokenizer with {what}", _FILE, edit(_FILE, changes), message)
    for key, inner in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"), ("decoder", "decoders")):
        damage = _nested(key, "Sequence", inner)
        yield Row(f"tokenizer with nested {key}s", _FILE, damage, "'Absent', which is not supported")
    yield Row(
        "tokenizer with a byte missing", _FILE, _byte_fallback, r"'model\.byte_fallback' is true, but .* '<0x00>'"
    )
    yield Row("tokenizer with 200,000 tokens", _FILE, _many_tokens, "needs 'absent'")
    yield Row("tokenizer that is a pickle", _FILE, write(_FILE, b"\x80\x04K\x01."), "ill-formed UTF-8|invalid literal")
