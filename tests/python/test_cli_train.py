"""`titer train`: what it writes and prints, its exit codes, and that an interrupted run loses nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import titer
from titer.cli import main
from titer.cli.exit_codes import ExitCode
from titer.display import TrainingProgress
from titer.training import load_adapter

RECORDS = [
    {"id": "rain", "prompt": "Is rain wet?", "response": "yes"},
    {"id": "fire", "prompt": "Is fire wet?", "response": "no"},
    {"id": "ice", "prompt": "Is ice cold?", "response": "yes, it is"},
]
SMALL = ["num_epochs=3", "batch_size=2", "lora_rank=4", "learning_rate=0.01"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return file


def arguments(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--model", str(model), "--data", str(data), "--out", str(out), *more]


def factors(folder: Path) -> list[torch.Tensor]:
    return [factor for pair in load_adapter(folder).modules.values() for factor in pair]


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(a, b) for a, b in zip(factors(one), factors(other), strict=True))


def test_one_run_writes_an_adapter_and_how_it_was_made(
    tiny_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapter"
    assert main(arguments(tiny_folder, data, out, *SMALL)) == ExitCode.REACHED
    assert sorted(file.name for file in out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.json",
    ]
    record = json.loads((out / "training.json").read_text())
    assert record["data"] == {"file": str(data), "records": 3, "merkle_root": titer.Dataset(data).merkle_root}
    assert (
        record["options"]["lora_rank"] == 4 and record["base_sha256"] == titer.load_model(tiny_folder).weights_sha256()
    )
    assert record["steps"]["step"] == [1, 2, 3, 4, 5, 6]
    assert record["steps"]["loss"][-1] < record["steps"]["loss"][0]
    shown = capsys.readouterr()
    assert f"{data} seed 0: completed after 6 steps" in shown.out and str(out) in shown.out
    assert "step 6/6" in shown.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter", "records.jsonl"]


def test_it_trains_what_finetune_does(tiny_folder: Path, data: Path, tmp_path: Path) -> None:
    assert main(arguments(tiny_folder, data, tmp_path / "a", *SMALL, "--seed", "3")) == 0
    spec = titer.training.FinetuneSpec(data, num_epochs=3, batch_size=2, lora_rank=4, learning_rate=0.01, seed=3)
    adapter = titer.training.finetune(titer.load_model(tiny_folder), [spec]).runs[0].adapter
    assert adapter is not None
    adapter.save(tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b")


def test_files_and_seeds_make_runs_that_are_what_they_are_alone(
    tiny_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(RECORDS[0]) + "\n")
    more = ["--data", str(other), "--seed", "1", "--seed", "2", "--json", *SMALL]
    assert main(arguments(tiny_folder, data, tmp_path / "runs", *more)) == 0
    report = json.loads(capsys.readouterr().out)
    assert [run["folder"] for run in report["runs"]] == [str(tmp_path / "runs" / f"run-{k}") for k in range(4)]
    assert [run["steps"] for run in report["runs"]] == [6, 6, 3, 3]
    assert main(arguments(tiny_folder, other, tmp_path / "alone", *SMALL, "--seed", "2")) == 0
    together = factors(tmp_path / "runs" / "run-3")
    for a, b in zip(together, factors(tmp_path / "alone"), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_all_weights_make_a_model_folder(tiny_folder: Path, data: Path, tmp_path: Path) -> None:
    assert main(arguments(tiny_folder, data, tmp_path / "tuned", "method=full", "optimizer=muon", "max_steps=2")) == 0
    tuned = titer.load_model(tmp_path / "tuned")
    assert tuned.fingerprint != titer.load_model(tiny_folder).fingerprint
    assert (tmp_path / "tuned" / "training.json").exists()


def test_ctrl_c_keeps_the_steps_and_resume_goes_on(
    tiny_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show = TrainingProgress.__call__

    def press(self: TrainingProgress, run: int, step: Any, num_steps: int) -> None:
        show(self, run, step, num_steps)
        if step.step == 2:
            signal.raise_signal(signal.SIGINT)

    out, checkpoint = tmp_path / "adapter", tmp_path / "adapter.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "__call__", press)
        assert main(arguments(tiny_folder, data, out, *SMALL)) == ExitCode.INTERRUPTED
    assert not out.exists() and checkpoint.is_dir()
    assert "--resume goes on" in capsys.readouterr().err
    assert main(arguments(tiny_folder, data, out, *SMALL)) == ExitCode.WRONG_USAGE
    assert "add --resume to go on, or remove it" in capsys.readouterr().err
    assert main(arguments(tiny_folder, data, out, *SMALL, "seed=1", "--resume")) == ExitCode.WRONG_USAGE
    assert "run 0 had seed = 0" in (shown := capsys.readouterr().err) and "goes on" not in shown
    assert main(arguments(tiny_folder, data, out, *SMALL, "--resume")) == 0
    assert not checkpoint.exists()
    assert main(arguments(tiny_folder, data, tmp_path / "whole", *SMALL)) == 0
    assert same(out, tmp_path / "whole")


def test_a_run_that_diverges_ends_with_not_reached_and_keeps_what_it_had_learned(
    tiny_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [*SMALL[:-1], "learning_rate=1e30"]
    assert main(arguments(tiny_folder, data, tmp_path / "adapter", *more)) == ExitCode.NOT_REACHED
    assert "diverged after 1 steps" in (shown := capsys.readouterr().out) and "lower its learning rate" in shown
    record = json.loads((tmp_path / "adapter" / "training.json").read_text())
    assert record["status"] == "diverged" and record["steps"]["step"] == [1]
    assert all(factor.isfinite().all() for factor in factors(tmp_path / "adapter"))


def test_a_run_that_overflows_writes_nothing(
    tiny_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [*SMALL[:-1], "learning_rate=1e300"]
    assert main(arguments(tiny_folder, data, tmp_path / "adapter", *more)) == ExitCode.NOT_REACHED
    assert "is lost" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["lora_rnk=4"], "unknown option 'lora_rnk'; did you mean 'lora_rank'?"),
        (["learning_rate=0"], "learning_rate must be greater than 0, got 0"),
        (["learning_rate=nan"], "learning_rate"),
        (["lora_rank=400"], "run 0: lora_rank 400 is over the size of"),
        (["target_modules=c_attn"], "'c_attn' names no linear layer"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--device", "teapot"], "teapot"),
    ],
)
def test_wrong_usage(
    tiny_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(arguments(tiny_folder, data, tmp_path / "adapter", *more)) == ExitCode.WRONG_USAGE
    shown = capsys.readouterr()
    assert message in shown.err and shown.out == ""
    assert [file.name for file in tmp_path.iterdir()] == ["records.jsonl"]


def test_bad_data_are_wrong_usage(
    tiny_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapter"
    assert main(arguments(tiny_folder, tmp_path / "none.jsonl", out)) == ExitCode.WRONG_USAGE
    assert "none.jsonl" in capsys.readouterr().err
    data.write_text(json.dumps({"prompt": "x", "response": " "}) + "\n")
    assert main(arguments(tiny_folder, data, out)) == ExitCode.WRONG_USAGE
    assert "records.jsonl:1: 'response'" in capsys.readouterr().err
    data.write_text(json.dumps({"prompt": "x " * 600, "response": "y"}) + "\n")
    assert main(arguments(tiny_folder, data, out)) == ExitCode.WRONG_USAGE
    assert "the model takes at most 512" in capsys.readouterr().err


def test_it_writes_over_nothing(
    tiny_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tiny_folder, data, tmp_path)) == ExitCode.WRONG_USAGE
    assert "exists; choose another folder, or remove it" in capsys.readouterr().err


def test_help_lists_the_options_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option["name"] in shown for option in titer.training.FinetuneOptions.describe())
