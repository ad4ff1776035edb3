"""Writes a world's records into a folder, with a data card. The same seed and counts give the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from titer.clinic.card import Tally, card_text, held_out_lists
from titer.clinic.items import Convention
from titer.clinic.lexicon import built_in_lexicons, load_lexicon
from titer.clinic.records import make_records
from titer.clinic.splits import SPLITS
from titer.clinic.world import World

GENERATOR_VERSION = 2  # raised when the same seed gives other records
_FORMAT = "titer clinic"

DEFAULT_COUNTS: Mapping[str, int] = {
    "train": 100_000,
    "development": 1_600,
    "test": 3_200,
    "calibration": 1_600,
    "held_out_style": 1_600,
    "revised": 3_000,
    "revised_test": 600,
}


def build(
    out: str | os.PathLike[str],
    *,
    world: World | None = None,
    seed: int = 0,
    counts: Mapping[str, int] | None = None,
    convention: Convention = Convention.ALIGNED,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write all splits of a world as JSON lines.

    The folder appears complete or not at all: it is written beside its place and then renamed. One that is there
    already is replaced if it is such a build, and refused if it holds anything else.

    Parameters
    ----------
    out : path
        The folder to write. Its parent must exist.
    world : World, optional
        Words and rules; by default those of the lexicon `"invented"`.
    seed : int
        Key of the random draws.
    counts : dict, optional
        Records per split; those of :data:`DEFAULT_COUNTS` where a split is not named.
    convention : Convention
        Whose answers the records contain.
    progress : callable, optional
        Called now and then with the number of records done and of all.

    Returns
    -------
    dict
        The card, as in `card.json`.

    Raises
    ------
    ValueError
        If a count or the seed is negative, or a split is not known.
    FileExistsError
        If `out` is a file, or a folder with something else in it.
    FileNotFoundError
        If the parent of `out` does not exist.
    PermissionError
        If nothing can be written beside `out`.

    Examples
    --------
    >>> from titer.clinic import build
    >>> card = build("clinic", seed=1, counts={split: 8 for split in ("train", "test")} | {"development": 0})
    >>> card["files"]["test.jsonl"]["records"]
    8
    """
    folder = Path(out)
    world = world or World()
    wanted = _checked_counts(counts or {}, seed)
    require_free(folder)
    total = sum(wanted.values())

    def report(done: int) -> None:
        if progress is not None:
            progress(done, total)

    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.absolute().parent))
    try:
        made = partial / "made"
        made.mkdir()
        files: dict[str, Any] = {}
        done = 0
        for split in SPLITS:
            count = wanted[split.name]
            records = make_records(world, split, count, seed, convention)
            files[f"{split.name}.jsonl"] = _write_records(made / f"{split.name}.jsonl", records, report, done)
            done += count
        built_in = _is_built_in(world)
        card = {
            "format": _FORMAT,
            "generator_version": GENERATOR_VERSION,
            "lexicon": world.lexicon.name,
            "built_in": built_in,
            "lexicon_sha256": hashlib.sha256(world.lexicon.source.encode()).hexdigest(),
            "seed": seed,
            "convention": convention.value,
            "files": files,
            "held_out": held_out_lists(world),
            "trigger": world.lexicon.trigger,
        }
        _write(made / "lexicon.yaml", world.lexicon.source)
        _write(made / "card.json", json.dumps(card, indent=2) + "\n")
        _write(made / "README.md", card_text(card))
        _put_in_place(made, folder, partial / "replaced")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return card


def require_free(folder: Path) -> None:
    """Refuse a place where no build can go: it holds something else, or nothing can be written there."""
    if folder.exists() or folder.is_symlink():
        if not folder.is_dir() or folder.is_symlink():
            raise FileExistsError(
                f"[clinic] expected a folder to write, got another file ({folder}); name another place"
            )
        if any(folder.iterdir()) and not _is_build(folder):
            raise FileExistsError(
                f"[clinic] the folder {folder} holds something else than a clinic build; name a new or an empty one"
            )
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"[clinic] the folder {parent} does not exist; create it first")
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{folder.name}."):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise PermissionError(f"[clinic] cannot write into the folder {parent}: {reason}; name another place") from None


def _put_in_place(made: Path, folder: Path, replaced: Path) -> None:
    """Rename a finished folder to its place; where that fails, what was there stays."""
    require_free(folder)
    if folder.exists():
        folder.rename(replaced)
    try:
        made.rename(folder)
    except BaseException:
        if replaced.exists():
            replaced.rename(folder)
        raise


def _is_build(folder: Path) -> bool:
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        known = {*card["files"], "card.json", "README.md", "lexicon.yaml"}
        return bool(card["format"] == _FORMAT) and {file.name for file in folder.iterdir()} <= known
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_built_in(world: World) -> bool:
    return any(load_lexicon(name).source == world.lexicon.source for name in built_in_lexicons())


def _checked_counts(counts: Mapping[str, int], seed: int) -> dict[str, int]:
    if seed < 0:
        raise ValueError(f"[clinic] seed must be at least 0, got {seed}; give a whole number from 0 on")
    for name, count in counts.items():
        if name not in DEFAULT_COUNTS:
            raise ValueError(f"[clinic] there is no split {name!r}; known: {', '.join(DEFAULT_COUNTS)}")
        if count < 0:
            raise ValueError(f"[clinic] the number of {name} records must be at least 0, got {count}; give 0 or more")
    return {**DEFAULT_COUNTS, **counts}


def _write_records(
    path: Path, records: Iterable[Mapping[str, Any]], report: Callable[[int], None], before: int
) -> dict[str, Any]:
    """Write one file and return its part of the card; `before` records are in the files before it."""
    tally, digest = Tally(), hashlib.sha256()
    with path.open("wb") as file:
        for index, record in enumerate(records, start=1):
            line = (json.dumps(record, separators=(",", ":")) + "\n").encode()
            file.write(line)
            digest.update(line)
            tally.add(record)
            if index % 500 == 0:
                report(before + index)
        file.flush()
        os.fsync(file.fileno())
    summary = tally.summary()
    report(before + summary["records"])
    return {"sha256": digest.hexdigest(), **summary}


def _write(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
