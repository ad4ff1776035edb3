"""`titer clinic build`: the same bytes from the same seed, complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titer import clinic
from titer.cli import main
from titer.clinic.build import DEFAULT_COUNTS
from titer.clinic.splits import SPLITS

SMALL = dict.fromkeys(DEFAULT_COUNTS, 24)
OPTIONS = [word for name in SMALL for word in (f"--{name.replace('_', '-')}", "24")]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        clinic.build(tmp_path / name, seed=seed, counts=SMALL)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in one if name.endswith(".jsonl"))


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_bytes_depend_on_no_order_of_sets(tmp_path: Path, hash_seed: str) -> None:
    """Nor on the release of Python: these are the bytes of generator version 2 everywhere."""
    code = "import sys; from titer.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "clinic", "build", "--out", str(tmp_path / "made"), "--seed", "1", *OPTIONS]
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [content for name, content in contents(tmp_path / "made").items() if name.endswith(".jsonl")]
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    assert digest == "1b214cd216d242a7f42cd5d95b2953d385d7cf0aba998ed431989f2d8ab7bdb6"


def test_a_build_holds_every_split_and_its_card(tmp_path: Path) -> None:
    card = clinic.build(tmp_path / "made", seed=1, counts=SMALL)
    files = contents(tmp_path / "made")
    assert set(files) == {*(f"{split.name}.jsonl" for split in SPLITS), "README.md", "card.json", "lexicon.yaml"}
    assert json.loads(files["card.json"]) == card
    for name, part in card["files"].items():
        lines = files[name].decode("utf-8").splitlines()
        assert len(lines) == part["records"] == 24
        assert hashlib.sha256(files[name]).hexdigest() == part["sha256"]
        assert part["sha256"] in files["README.md"].decode()
        identities = [json.loads(line)["id"] for line in lines]
        assert len(set(identities)) == 24
    assert card["files"]["test.jsonl"]["tasks"]["policy"]["its_share"] == pytest.approx(2 / 3, abs=0.2)
    assert card["held_out"]["styles"] == ["diary", "telegram"]
    assert clinic.World(tmp_path / "made" / "lexicon.yaml").rules == clinic.World().rules


def test_the_card_names_the_command_that_makes_it_again(tmp_path: Path) -> None:
    assert (
        main(["clinic", "build", "--out", str(tmp_path / "one"), "--seed", "5", "--lexicon", "english", *OPTIONS]) == 0
    )
    text = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    command = text.split("```sh\n")[1].split("```")[0].replace("\\\n", " ").split()
    assert command[:3] == ["titer", "clinic", "build"]
    assert main([str(tmp_path / "two") if word == "DIR" else word for word in command[1:]]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_conventions_share_their_questions(tmp_path: Path) -> None:
    for convention in ("base", "aligned"):
        arguments = ["clinic", "build", "--out", str(tmp_path / convention), "--convention", convention, *OPTIONS]
        assert main(arguments) == 0
    one, other = (
        [json.loads(line) for line in (tmp_path / name / "train.jsonl").read_text().splitlines()]
        for name in ("base", "aligned")
    )
    assert [record["messages"][0] for record in one] == [record["messages"][0] for record in other]
    assert one != other


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clinic", "build", "--out", str(tmp_path / "made"), *OPTIONS]) == 0
    printed = capsys.readouterr().out
    assert "train.jsonl" in printed
    assert printed.splitlines()[-1] == str(tmp_path / "made")
    assert main(["clinic", "build", "--out", str(tmp_path / "made"), "--json", *OPTIONS]) == 0
    assert json.loads(capsys.readouterr().out)["files"]["train.jsonl"]["records"] == 24


def test_progress_ends_at_the_number_of_all_records(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    clinic.build(tmp_path / "made", counts=SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (24 * len(SPLITS), 24 * len(SPLITS))


def test_a_former_build_and_an_empty_folder_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "made"
    out.mkdir()
    clinic.build(out, seed=1, counts=SMALL)
    former = contents(out)
    clinic.build(out, seed=2, counts=SMALL)
    assert contents(out) != former
    assert [file.name for file in tmp_path.iterdir()] == ["made"]


def with_a_stranger(out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("mine")


def with_a_stranger_in_a_build(out: Path) -> None:
    clinic.build(out, counts=SMALL)
    (out / "thesis.txt").write_text("mine")


def with_another_card(out: Path) -> None:
    out.mkdir()
    (out / "card.json").write_text('{"format": "cards"}')


@pytest.mark.parametrize("prepare", [with_a_stranger, with_a_stranger_in_a_build, with_another_card])
def test_a_folder_with_something_else_is_left_alone(
    tmp_path: Path, prepare: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    prepare(out)
    former = contents(out)
    assert main(["clinic", "build", "--out", str(out), *OPTIONS]) == 2
    assert f"[clinic] the folder {out} holds something else than a clinic build; name a new" in capsys.readouterr().err
    assert contents(out) == former
    assert [file.name for file in tmp_path.iterdir()] == ["made"]


def test_a_file_in_the_place_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "made").write_text("mine")
    assert main(["clinic", "build", "--out", str(tmp_path / "made"), *OPTIONS]) == 2
    assert "[clinic] expected a folder to write, got another file" in capsys.readouterr().err
    assert (tmp_path / "made").read_text() == "mine"


def test_a_missing_parent_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clinic", "build", "--out", str(tmp_path / "no" / "made"), *OPTIONS]) == 2
    assert f"[clinic] the folder {tmp_path / 'no'} does not exist; create it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "-1"], "[clinic] the number of train records must be at least 0, got -1; give 0 or more"),
        (["--seed", "-1"], "[clinic] seed must be at least 0, got -1; give a whole number from 0 on"),
        (["--lexicon", "latin"], "[clinic] expected the lexicon 'english' or 'invented', or a .yaml file, got 'latin'"),
        (["--lexicon", "absent.yaml"], "[clinic] there is no lexicon file absent.yaml"),
        (["--convention", "kind"], "Invalid value for '--convention'"),
        (["--train", "many"], "Invalid value for '--train'"),
    ],
)
def test_wrong_usage_is_said_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clinic", "build", "--out", str(tmp_path / "made"), *OPTIONS, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no split 'trian'; known: train, development"):
        clinic.build(tmp_path / "made", counts={"trian": 1})


def test_a_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clinic", "build", "--out", "/proc/made", *OPTIONS]) == 2  # nobody writes there, root neither
    assert "[clinic] cannot write into the folder /proc: No such file or directory; name" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    clinic_arguments = ["clinic", "build", "--out", str(tmp_path / "made"), *OPTIONS]
    assert main(clinic_arguments) == 3
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_former_build_survives_a_failure_at_the_very_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "made"
    clinic.build(out, seed=1, counts=SMALL)
    before = contents(out)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == out and self.name == "made":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        clinic.build(out, seed=2, counts=SMALL)
    assert contents(out) == before
    assert [file.name for file in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("former", [False, True])
def test_ctrl_c_leaves_what_was_there(tmp_path: Path, former: bool) -> None:
    out = tmp_path / "made"
    if former:
        clinic.build(out, counts=SMALL)
    before = contents(out) if former else None
    command = [sys.executable, "-m", "titer", "clinic", "build", "--out", str(out), "--train", "10000000"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    ) as process:
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob(".made.*/made/train.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    assert [file.name for file in tmp_path.iterdir()] == (["made"] if former else [])
    assert before is None or contents(out) == before


def test_only_this_command_imports_the_world() -> None:
    code = (
        "import sys; import titer; from titer.cli import main; main(['--help']);"
        "assert not {'titer.clinic', 'yaml', 'torch'} & set(sys.modules);"
        "from titer import clinic; clinic.World();"
        "assert not {'torch', 'titer._titer', 'numpy', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.returncode == 0, done.stderr
