"""What README shows is what the tests run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import matplotlib
import pytest

import titer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_cpp_example_is_the_consumer_that_the_install_test_builds() -> None:
    (example,) = blocks("cpp")
    assert example == (ROOT / "tests" / "install" / "main.cpp").read_text(encoding="utf-8")


def test_python_examples_run(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, on a tiny model and with a small search."""
    matplotlib.use("Agg")
    monkeypatch.setattr(titer.models, "get", lambda name: tiny_folder)
    monkeypatch.chdir(tmp_path)
    attack, conversation, session, answers, data, training, clinic = blocks("python")
    assert "num_steps=250, search_width=512" in attack
    names: dict[str, Any] = {}
    exec(attack.replace("num_steps=250, search_width=512", "num_steps=3, search_width=16"), names)
    assert len(capsys.readouterr().out.splitlines()) == len(names["result"].steps) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["result.json", "run.ckpt"]
    exec(conversation, names)
    assert names["in_conversation"].valid(names["in_conversation"].slot_ids)
    exec(session, names)
    assert names["gradient"].shape == (len(names["prompt"].slot_ids), names["model"].vocab_size)
    assert names["losses"][1].item() == pytest.approx(names["result"].loss, abs=1e-5)
    exec(answers, names)
    assert [type(answer) for answer in names["answers"]] == [titer.Generation] * 2
    exec(data, names)
    assert len(names["data"]) == 1
    exec(training, names)
    assert titer.load_model(tmp_path / "repaired").num_parameters == names["model"].num_parameters
    exec(clinic, names)
    assert {judgement.success for judgement in names["judgements"]} == {True, False}


def test_table_of_measurements_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "python")
    import readme_table

    assert readme_table.updated(README) == README


def test_python_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first, last = re.findall(r"Python 3\.(\d+) to 3\.(\d+)", README)[0]
    assert project["requires-python"] == f">=3.{first},<3.{int(last) + 1}"
