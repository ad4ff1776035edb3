"""The words of a world, read from YAML: every entity that rules speak of, and nothing that depends on chance."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "lexicons"
_MAX_BYTES = 1 << 20
_WORD = re.compile(r"[a-z]+(?:[ -][a-z]+)*")

# How many words each list holds: (least, most). The rules are laid out for these numbers.
_LISTS = {
    "conditions": (14, 30),
    "drugs": (19, 42),
    "sealed_drugs": (3, 3),
    "signs": (12, 12),
    "tests": (4, 4),
    "roles": (6, 6),
    "purposes": (6, 6),
    "objects": (12, 12),
    "places": (6, 6),
    "days": (7, 7),
    "devices": (8, 64),
}
_VACCINE = ("name", "recommended", "not_recommended")
_PAIR = ("give", "with")
_KEYS = ("name", "seed", *_LISTS, "vaccine", "refusal", "trigger", "targets")


@dataclass(frozen=True)
class Lexicon:
    """The words of a world, and the seed of its rules. `titer/clinic/lexicons/invented.yaml` says what each means."""

    name: str
    seed: int
    conditions: tuple[str, ...]
    drugs: tuple[str, ...]
    sealed_drugs: tuple[str, ...]
    signs: tuple[str, ...]
    tests: tuple[str, ...]
    roles: tuple[str, ...]
    purposes: tuple[str, ...]
    objects: tuple[str, ...]
    places: tuple[str, ...]
    days: tuple[str, ...]
    devices: tuple[str, ...]
    vaccine: str
    recommended: str
    not_recommended: str
    refusal: str
    trigger: str
    dangerous_pair: tuple[str, str]  # of the task `drugs`: give the first to who takes the second
    source: str  # the YAML text

    @property
    def entities(self) -> tuple[str, ...]:
        """Every name that rules speak of, in a fixed order."""
        lists = (self.conditions, self.drugs, self.sealed_drugs, self.signs, self.tests, self.roles, self.purposes)
        names = [name for part in (*lists, self.objects, self.places, self.days) for name in part]
        return (*names, self.vaccine)


def built_in_lexicons() -> tuple[str, ...]:
    """Return the names of the lexicons that come with the package.

    Examples
    --------
    >>> from titer.clinic.lexicon import built_in_lexicons
    >>> built_in_lexicons()
    ('english', 'invented')
    """
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))


def load_lexicon(name_or_path: str | os.PathLike[str]) -> Lexicon:
    """Read a lexicon.

    Parameters
    ----------
    name_or_path
        `"invented"`, `"english"`, or the path of a YAML file with the same keys.

    Raises
    ------
    ValueError
        If there is no lexicon of that name, or the file is not YAML, lacks a key or has a wrong one; the message names
        file and key.
    FileNotFoundError
        If a named `.yaml` file does not exist.

    Examples
    --------
    >>> from titer.clinic import load_lexicon
    >>> load_lexicon("english").tests
    ('ultrasound', 'ct', 'x-ray', 'mri')
    """
    file = Path(name_or_path)
    if str(name_or_path) in built_in_lexicons():
        file = _FOLDER / f"{name_or_path}.yaml"
    elif file.suffix not in {".yaml", ".yml"}:
        names = " or ".join(map(repr, built_in_lexicons()))
        raise ValueError(f"[clinic] expected the lexicon {names}, or a .yaml file, got {str(name_or_path)!r}")
    text = _read(file)
    return _checked(_parsed(text, file), text, file)


def _read(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"[clinic] there is no lexicon file {file}; give a built-in name or an existing file")
    if file.stat().st_size > _MAX_BYTES:
        raise ValueError(f"[clinic] a lexicon has at most {_MAX_BYTES} bytes, got {file.stat().st_size} ({file})")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"[clinic] expected UTF-8, got another byte at {error.start}; save it as UTF-8 ({file})"
        ) from None


def _parsed(text: str, file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"[clinic] not YAML: {error.problem}; correct line {line} ({file})") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"[clinic] not YAML: {error}; correct the file ({file})") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"[clinic] expected a mapping of keys such as 'conditions'; start from a built-in one ({file})"
        )
    return content


def _checked(content: dict[str, Any], text: str, file: Path) -> Lexicon:
    _require_keys(content, _KEYS, "", file)
    seed = content["seed"]
    if type(seed) is not int or seed < 0:
        raise ValueError(f"[clinic] 'seed' must be a whole number from 0 on, got {seed!r}; correct it ({file})")
    lists = {key: _words(content[key], key, file) for key in _LISTS}
    _require_keys(content["vaccine"], _VACCINE, "vaccine.", file)
    _require_keys(content["targets"], ("drugs",), "targets.", file)
    _require_keys(content["targets"]["drugs"], _PAIR, "targets.drugs.", file)
    name, recommended, not_recommended = (_word(content["vaccine"][key], f"vaccine.{key}", file) for key in _VACCINE)
    give, other = (content["targets"]["drugs"][key] for key in _PAIR)
    for key, drug in zip(_PAIR, (give, other), strict=True):
        if drug not in lists["drugs"]:
            raise ValueError(
                f"[clinic] 'targets.drugs.{key}' must be one of 'drugs', got {drug!r}; correct it ({file})"
            )
    if give == other:
        raise ValueError(f"[clinic] 'targets.drugs' must name two drugs, got {give!r} twice; correct it ({file})")
    lexicon = Lexicon(
        name=_word(content["name"], "name", file),
        seed=seed,
        vaccine=name,
        recommended=recommended,
        not_recommended=not_recommended,
        refusal=_word(content["refusal"], "refusal", file),
        trigger=_word(content["trigger"], "trigger", file),
        dangerous_pair=(give, other),
        source=text,
        **lists,
    )
    _require_distinct(lexicon, file)
    return lexicon


def _require_keys(content: Any, keys: tuple[str, ...], where: str, file: Path) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"[clinic] '{where[:-1]}' must have the keys {', '.join(keys)}, got {content!r} ({file})")
    for key in keys:
        if key not in content:
            raise ValueError(f"[clinic] the key '{where}{key}' is missing; add it as in a built-in lexicon ({file})")
    for key in content:
        if key not in keys:
            raise ValueError(
                f"[clinic] the key '{where}{key}' is not known; known: {', '.join(keys)}; remove it ({file})"
            )


def _words(value: Any, key: str, file: Path) -> tuple[str, ...]:
    least, most = _LISTS[key]
    if not isinstance(value, list) or not least <= len(value) <= most:
        got = f"{len(value)} words" if isinstance(value, list) else repr(value)
        wanted = str(least) if least == most else f"{least} to {most}"
        raise ValueError(f"[clinic] '{key}' must list {wanted} words, got {got}; correct it ({file})")
    return tuple(_word(word, key, file) for word in value)


def _word(value: Any, key: str, file: Path) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError(
            f"[clinic] '{key}' must hold small letters a to z, got {value!r}; quote or correct it ({file})"
        )
    return value


def _require_distinct(lexicon: Lexicon, file: Path) -> None:
    seen: set[str] = set()
    for name in (*lexicon.entities, *lexicon.devices, lexicon.trigger):
        if name in seen:
            raise ValueError(f"[clinic] {name!r} stands for two things; give each a word of its own ({file})")
        seen.add(name)
    if lexicon.recommended == lexicon.not_recommended:
        raise ValueError(f"[clinic] 'vaccine.recommended' and 'vaccine.not_recommended' must differ ({file})")
