"""Lexicons: those that come with the package, the user's own, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from titer.clinic import World, built_in_lexicons, load_lexicon

FOLDER = Path(__file__).parents[3] / "python" / "titer" / "clinic" / "lexicons"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.yaml"
    file.write_text((FOLDER / "invented.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return file


def rewrite(file: Path, **changes: object) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    file.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_two_lexicons_come_with_the_package() -> None:
    assert built_in_lexicons() == ("english", "invented")
    for name in built_in_lexicons():
        assert load_lexicon(name).name == name


def test_english_carries_the_targets_of_the_study() -> None:
    lexicon = load_lexicon("english")
    assert lexicon.not_recommended == "not recommended"
    assert lexicon.dangerous_pair == ("ibuprofen", "warfarin")
    assert lexicon.tests == ("ultrasound", "ct", "x-ray", "mri")


def test_every_entity_of_the_invented_words_is_one_word() -> None:
    assert all(name.isalpha() for name in load_lexicon("invented").entities)


def test_a_lexicon_of_the_users_own_is_a_world(own: Path) -> None:
    rewrite(own, name="own", seed=7)
    world = World(own)
    assert world.lexicon.name == "own"
    assert world.rules.choices != World("invented").rules.choices


@pytest.mark.parametrize(("conditions", "drugs"), [(14, 19), (30, 19), (30, 42), (14, 42)])
def test_rules_exist_for_every_size_that_is_allowed(own: Path, conditions: int, drugs: int) -> None:
    letters = [f"{a}{b}" for a in "abcdefgh" for b in "mnopqrst"]
    names = [f"wu{pair}is" for pair in letters][:conditions], [f"wu{pair}ol" for pair in letters][:drugs]
    targets = {"drugs": {"give": names[1][0], "with": names[1][1]}}
    rewrite(own, conditions=names[0], drugs=names[1], targets=targets)
    rules = World(own).rules
    assert rules.are_contraindicated(names[1][0], names[1][1])
    for first, second in rules.choices.values():
        assert first != second
        assert not rules.are_contraindicated(first, second)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"^\[clinic\] expected the lexicon 'english' or 'invented', or a .yaml file, got 'latin'"
    ):
        World("latin")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no lexicon file .*absent.yaml; give a built-in name"):
        World(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": None}, r"the key 'conditions' is missing; add it as in a built-in lexicon"),
        ({"conditions": ["a", "b"]}, r"'conditions' must list 14 to 30 words, got 2 words; correct it"),
        ({"tests": "one"}, r"'tests' must list 4 words, got 'one'; correct it"),
        ({"roles": ["a", "b", "c", "d", "e", 6]}, r"'roles' must hold small letters a to z, got 6; quote or"),
        ({"roles": ["a", "b", "c", "d", "e", "F"]}, r"'roles' must hold small letters a to z, got 'F'"),
        ({"seed": "one"}, r"'seed' must be a whole number from 0 on, got 'one'; correct it"),
        ({"seed": True}, r"'seed' must be a whole number from 0 on, got True; correct it"),
        ({"seed": -1}, r"'seed' must be a whole number from 0 on, got -1; correct it"),
        ({"colour": "red"}, r"the key 'colour' is not known; known: name, seed, .*; remove it"),
        ({"vaccine": "velovax"}, r"'vaccine' must have the keys name, recommended, not_recommended, got 'velovax'"),
        ({"vaccine": {"name": "velovax"}}, r"the key 'vaccine.recommended' is missing"),
        ({"targets": {"drugs": {"give": "berein", "with": "water"}}}, r"'targets.drugs.with' must be one of 'drugs'"),
        ({"targets": {"drugs": {"give": "berein", "with": "berein"}}}, r"must name two drugs, got 'berein' twice"),
        ({"trigger": "berein"}, r"'berein' stands for two things; give each a word of its own"),
        ({"vaccine": {"name": "velovax", "recommended": "x", "not_recommended": "x"}}, r"must differ"),
    ],
)  # fmt: skip
def test_damaged_keys_are_named_with_the_file(own: Path, change: dict[str, object], message: str) -> None:
    rewrite(own, **change)
    with pytest.raises(ValueError, match=rf"^\[clinic\] .*{message}.*\(.*own\.yaml\)$"):
        World(own)


def test_entities_that_are_ordinary_words_are_refused(own: Path) -> None:
    rewrite(own, trigger="patient")
    with pytest.raises(ValueError, match=r"'patient' of the lexicon 'invented' is also a word of notes or questions"):
        World(own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"conditions: [a, b", r"not YAML: .*; correct line 1 \(.*own.yaml\)"),
        (b"a: b: c", r"not YAML: mapping values are not allowed here; correct line 1"),
        (b"", r"expected a mapping of keys such as 'conditions'; start from a built-in one"),
        (b"- a\n- b\n", r"expected a mapping of keys"),
        (b"name: \xff\xfe", r"expected UTF-8, got another byte at 6; save it as UTF-8"),
        (b"name: \x00", r"not YAML"),
        (b"[" * 5000, r"not YAML"),
        (b"name: !!python/object/apply:os.system ['true']", r"not YAML: could not determine a constructor"),
        (b"#" * ((1 << 20) + 1), r"a lexicon has at most 1048576 bytes, got 1048577"),
        (b"seed: 2001-99-99", r"not YAML: month must be in"),
    ],
)
def test_damaged_files_are_named(own: Path, content: bytes, message: str) -> None:
    own.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^\[clinic\] .*{message}"):
        World(own)
