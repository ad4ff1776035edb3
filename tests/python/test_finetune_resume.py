"""A fine-tuning that is stopped, interrupted or killed goes on bit by bit; a checkpoint fits one fine-tuning only."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import titer
from finetune_cases import OPTIONS, Run, assert_same_bits, finetune, losses, sequences
from model_cases import pair
from titer import _titer

# Four groups: three ragged runs that train together, another rank, one module, all weights.
RUNS = [
    Run({"seed": 0}, sequences(8, 0)),
    Run({"seed": 1, "max_steps": 2, "lora_dropout": 0.2}, sequences(4, 1)),
    Run({"seed": 2, "num_epochs": 2, "lr_schedule": "cosine", "warmup_steps": 2}, sequences(7, 2)),
    Run({"lora_rank": 2, "optimizer": "muon"}, sequences(8, 3)),
    Run({"target_modules": ["down_proj"], "num_epochs": 2}, sequences(4, 4)),
    Run({"method": "full", "optimizer": "muon", "weight_decay": 0.1}, sequences(8, 5)),
]
CALLS = 3 + 2 + 6 + 3 + 4 + 3  # of progress: the steps of all runs


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def model() -> titer.Model:
    return pair("grouped heads, tied").model


@pytest.fixture(scope="module")
def whole(model: titer.Model) -> list[_titer.FinetuneResult]:
    """What the runs give when nothing happens."""
    return finetune(model, RUNS).runs


def resume(model: titer.Model, folder: Path, **how: Any) -> list[_titer.FinetuneResult]:
    return finetune(model, RUNS, checkpoint=folder, resume=True, **how).runs


def assert_all_same(results: list[_titer.FinetuneResult], expected: list[_titer.FinetuneResult]) -> None:
    for one, other in zip(results, expected, strict=True):
        assert_same_bits(one, other)


def test_a_checkpoint_and_progress_change_nothing(
    model: titer.Model, whole: list[_titer.FinetuneResult], tmp_path: Path
) -> None:
    calls: list[int] = []
    results = finetune(model, RUNS, checkpoint=tmp_path, progress=lambda run, *_: calls.append(run)).runs
    assert_all_same(results, whole)
    assert sorted(os.listdir(tmp_path)) == [f"group-{group}.safetensors" for group in range(4)]
    assert len(calls) == CALLS
    again = finetune(model, RUNS, checkpoint=tmp_path, resume=True, progress=lambda run, *_: calls.append(run))
    assert_all_same(again.runs, whole)
    assert len(calls) == CALLS and again.cost.queries == 0, "what has ended is not done again"


def stop_at(limit: int, how: str) -> Callable[..., bool]:
    """Return a progress callback whose call number `limit` stops the fine-tuning."""
    calls = itertools.count(1)

    def progress(*_: Any) -> bool:
        if next(calls) < limit:
            return True
        if how == "exception":
            raise Interrupted
        if how == "ctrl-c":
            signal.raise_signal(signal.SIGINT)
        return False

    return progress


@pytest.mark.parametrize("how", ["false", "exception", "ctrl-c"])
@pytest.mark.parametrize("stops", [[1], [2], [5], [11], [12], [16], [20], [1, 2, 3, 5], [4] * 4], ids=str)
def test_stopped_and_resumed_equals_uninterrupted(
    model: titer.Model, whole: list[_titer.FinetuneResult], tmp_path: Path, stops: list[int], how: str
) -> None:
    for limit in stops:
        try:
            part = resume(model, tmp_path, progress=stop_at(limit, how))
            assert how == "false"
            assert {one.status for one in part} <= {"stopped", "completed"} and part[-1].status == "stopped"
            done = [len(one.steps) for one in part]
            assert done != [len(one.steps) for one in whole]
            for one, expected, steps in zip(part, whole, done, strict=True):
                assert losses(one) == losses(expected)[:steps]
        except Interrupted:
            assert how == "exception"
        except KeyboardInterrupt:
            assert how == "ctrl-c"
    assert_all_same(resume(model, tmp_path), whole)


def test_what_comes_before_the_stop_is_not_done_again(model: titer.Model, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(run: int, step: _titer.FinetuneStep, num_steps: int) -> bool:
        seen.append((run, step.step))
        return len(seen) not in (4, 7, 15)

    for _ in range(4):
        resume(model, tmp_path, progress=progress)
    assert len(seen) == len(set(seen)) == CALLS


def test_a_run_that_goes_on_begins_anew_without_resume(
    model: titer.Model, whole: list[_titer.FinetuneResult], tmp_path: Path
) -> None:
    finetune(model, RUNS, checkpoint=tmp_path, progress=lambda *_: False)
    steps: list[int] = []
    results = finetune(model, RUNS, checkpoint=tmp_path, progress=lambda _, step, __: steps.append(step.step)).runs
    assert_all_same(results, whole)
    assert steps[0] == 1 and len(steps) == CALLS


def test_a_diverged_run_stays_so(model: titer.Model, tmp_path: Path) -> None:
    runs = [RUNS[0], Run({"learning_rate": 1e30, "lr_schedule": "constant"}, RUNS[2].data), RUNS[2]]
    expected = finetune(model, runs).runs
    calls = iter([True] * 6 + [False])  # three in the first step, two in others
    part = finetune(model, runs, checkpoint=tmp_path, progress=lambda *_: next(calls)).runs
    assert [one.status for one in part] == ["completed", "diverged", "stopped"]
    assert_all_same(finetune(model, runs, checkpoint=tmp_path, resume=True).runs, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_dtypes_resume_bit_by_bit(tiny_folder: Path, tmp_path: Path, dtype: str) -> None:
    model = titer.load_model(tiny_folder, dtype=dtype)
    whole = finetune(model, RUNS).runs
    for limit in (4, 7, 8):
        resume(model, tmp_path, progress=stop_at(limit, "false"))
    assert_all_same(resume(model, tmp_path), whole)


def interrupt(signal_number: int, frame: Any) -> None:
    raise Interrupted


@pytest.mark.parametrize("micro_batch_tokens", [1, 1024])
def test_interrupted_anywhere_and_resumed_equals_uninterrupted(
    model: titer.Model, tmp_path: Path, micro_batch_tokens: int
) -> None:
    """Signals are seen between the micro-batches of a step, too."""
    how: dict[str, Any] = {"checkpoint": tmp_path, "micro_batch_tokens": micro_batch_tokens}
    whole = finetune(model, RUNS, micro_batch_tokens=micro_batch_tokens).runs
    old = signal.signal(signal.SIGALRM, interrupt)
    interrupted, delay = 0, 0.005
    try:
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                results = finetune(model, RUNS, resume=True, **how).runs
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except Interrupted:
                interrupted += 1
                delay *= 1.2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert interrupted >= 3
    assert_all_same(results, whole)


# The process asks for a checkpoint after every step, so that it is killed while it writes, too.
KILLED = """
import json, sys, titer
from titer import _titer
folder, checkpoint, runs = sys.argv[1], sys.argv[2], json.load(sys.stdin)
model = titer.load_model(folder)
specs = [(_titer.FinetuneOptions(**options), _titer.TrainingData(data)) for options, data in runs]
calls = 0
print("begins", flush=True)
while True:
    def stop(*_):
        global calls
        calls += 1
        print(calls, flush=True)
        return False
    results = _titer.finetune(model, specs, checkpoint=checkpoint, resume=True, progress=stop).runs
    if all(result.status == "completed" for result in results):
        break
print("ended", flush=True)
"""


def test_killed_and_resumed_equals_uninterrupted(tiny_folder: Path, tmp_path: Path) -> None:
    runs = [Run(run.options | {"max_steps": 40}, run.data) for run in RUNS]
    specs = json.dumps([[OPTIONS | run.options, run.data] for run in runs])
    for calls in (3, 17, 41):
        command = [sys.executable, "-c", KILLED, str(tiny_folder), str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(specs)
            process.stdin.close()
            for line in process.stdout:
                assert line != "ended\n", "the run ended before it was killed"
                if line == f"{calls}\n":
                    break
            time.sleep(0.001 * calls)  # anywhere in what follows
            process.kill()
        assert process.returncode == -signal.SIGKILL
    model = titer.load_model(tiny_folder)
    first = finetune(model, runs, checkpoint=tmp_path, resume=True, progress=lambda *_: False).runs
    assert sum(len(one.steps) for one in first) > 40
    assert_all_same(finetune(model, runs, checkpoint=tmp_path, resume=True).runs, finetune(model, runs).runs)


# Checkpoints of something else


def other_data() -> Run:
    (ids, answers), *others = RUNS[0].data
    return Run(RUNS[0].options, [([*ids[:-1], (ids[-1] + 1) % 320], answers), *others])


def other_answers() -> Run:
    (ids, answers), *others = RUNS[0].data
    assert len(answers) == 2
    return Run(RUNS[0].options, [(ids, answers[1:]), *others])


@pytest.fixture
def stopped(model: titer.Model, tmp_path: Path) -> Path:
    """A folder with checkpoints of RUNS that have ended, but the last."""
    calls = iter(range(CALLS - 1))
    finetune(model, RUNS, checkpoint=tmp_path, progress=lambda *_: next(calls) < CALLS - 2)
    return tmp_path


@pytest.mark.parametrize(
    ("at", "run", "message"),
    [
        (0, Run(RUNS[0].options | {"learning_rate": 0.25}, RUNS[0].data), r"run 0 had learning_rate = 0.005, not 0.25"),
        (0, Run(RUNS[0].options | {"max_steps": 3}, RUNS[0].data), r"run 0 had max_steps = null, not 3"),
        (2, Run(RUNS[2].options | {"seed": 7}, RUNS[2].data), r"run 2 had seed = 2, not 7"),
        (2, Run(RUNS[2].options | {"lr_schedule": "linear"}, RUNS[2].data), r'run 2 had lr_schedule = "cosine", not'),
        (0, other_data(), r"run 0 had other data"),
        (0, other_answers(), r"run 0 had other data"),
        (1, Run(RUNS[1].options, RUNS[1].data[::-1]), r"run 1 had other data"),
        (1, Run(RUNS[1].options, RUNS[1].data[:3]), r"run 1 had other data"),
        (3, Run(RUNS[3].options | {"weight_decay": 0.5}, RUNS[3].data), r"run 3 had weight_decay = 0(\.0)?, not 0.5"),
        (3, Run(RUNS[3].options, RUNS[0].data), r"run 3 had other data"),
        (5, Run(RUNS[5].options | {"optimizer": "adamw"}, RUNS[5].data), r'run 5 had optimizer = "muon", not "adamw"'),
        (1, Run(RUNS[1].options | {"lora_rank": 3}, RUNS[1].data), r"run 1 had lora_rank = 4, not 3"),
        (0, Run(RUNS[0].options | {"target_modules": ["q_proj"]}, RUNS[0].data), r"run 0 had target_modules = "),
    ],
    ids=itertools.count(),
)
def test_a_checkpoint_of_other_runs_is_refused_by_what_differs(
    model: titer.Model, stopped: Path, at: int, run: Run, message: str
) -> None:
    before = contents(stopped)
    with pytest.raises(ValueError, match=rf"^\[finetune\] cannot resume: {message}.*group-\d.safetensors.*remove"):
        finetune(model, [*RUNS[:at], run, *RUNS[at + 1 :]], checkpoint=stopped, resume=True)
    assert contents(stopped) == before


def test_a_checkpoint_of_another_model_is_refused_by_name(model: titer.Model, stopped: Path) -> None:
    with pytest.raises(ValueError, match=rf"cannot resume: it belongs to model '{model.fingerprint}'"):
        finetune(pair("biases").model, RUNS, checkpoint=stopped, resume=True)


def test_a_checkpoint_of_fewer_runs_is_refused(model: titer.Model, stopped: Path) -> None:
    with pytest.raises(ValueError, match="cannot resume: it has another number of runs"):
        finetune(model, RUNS[:2], checkpoint=stopped, resume=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def rewrite(path: Path, drop: str = "", **metadata: str) -> None:
    with safe_open(path, framework="pt") as file:
        kept = file.metadata() | metadata
    tensors = load_file(path)
    tensors.pop(drop, None)
    save_file(tensors, path, kept)


BROKEN = {
    "cut": (cut, r"group-0\.safetensors"),
    "empty": (empty, r"group-0\.safetensors"),
    "of nothing": (lambda path: save_file({"x": torch.zeros(1)}, path), r"its format is not titer-finetune-1"),
    "of another format": (lambda path: rewrite(path, identity='{"format": "titer-finetune-9"}'), "its format is not"),
    "identity is no JSON": (lambda path: rewrite(path, identity="{"), "its format is not"),
    "identity without runs": (lambda path: rewrite(path, identity='{"format": "titer-finetune-1"}'), "model"),
    "model is a number": (lambda path: rewrite(path, identity='{"format": "titer-finetune-1", "model": 3}'), "group-0"),
    "format is a number": (lambda path: rewrite(path, identity='{"format": 1}'), "format"),
    "no values": (lambda path: rewrite(path, "values"), r"'values' is missing or of another size.*group-0"),
    "no trace": (lambda path: rewrite(path, "trace.1"), r"'trace.1' is missing or of another size.*group-0"),
    "no state": (lambda path: rewrite(path, state="null"), r"the state of the runs is missing.*group-0"),
    "state of numbers": (lambda path: rewrite(path, state="[1, 2, 3]"), "group-0"),
    "state of texts": (lambda path: rewrite(path, state='["a", "b", "c"]'), r"the state of the runs is .*damaged"),
    "too many steps": (lambda path: rewrite_steps(path, range(1, 60)), r"the steps of run 0 do not fit its options"),
    "steps out of order": (lambda path: rewrite_steps(path, [2]), r"the steps of run 0 do not fit its options"),
    "a trace of other columns": (lambda path: rewrite_steps(path, [1], columns=4), r"'trace.0' is missing or of"),
    "an unknown status": (lambda path: rewrite_status(path, 9), "group-0"),
}


def rewrite_steps(path: Path, steps: Iterable[int], columns: int = 5) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["trace.0"] = torch.tensor([[float(step)] + [1.0] * (columns - 1) for step in steps], dtype=torch.float64)
    save_file(tensors, path, metadata)


def rewrite_status(path: Path, status: int) -> None:
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    state[0]["status"] = status
    rewrite(path, state=json.dumps(state))


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_is_refused_by_name(model: titer.Model, stopped: Path, how: str) -> None:
    damage, message = BROKEN[how]
    damage(stopped / "group-0.safetensors")
    with pytest.raises(ValueError, match=message):
        finetune(model, RUNS, checkpoint=stopped, resume=True)


def test_what_stops_all_at_the_end_of_a_group_stops_the_groups_behind_it(model: titer.Model) -> None:
    runs = [Run({"method": "full", "max_steps": 2}, RUNS[0].data) for _ in range(2)]
    results = finetune(model, runs, progress=lambda run, step, num_steps: step.step < num_steps).runs
    assert [(result.status, len(result.steps)) for result in results] == [("completed", 2), ("stopped", 0)]


# Disks that are full


@pytest.fixture
def small_files() -> Iterator[None]:
    """A limit on file sizes stands for a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("how", ["false", "exception", "to the end"])
def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(
    model: titer.Model,
    whole: list[_titer.FinetuneResult],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    how: str,
) -> None:
    finetune(model, RUNS, checkpoint=tmp_path, progress=lambda *_: False)
    before = contents(tmp_path)

    request.getfixturevalue("small_files")
    # What interrupted the runs comes first.
    expected = (
        pytest.raises(Interrupted) if how == "exception" else pytest.raises(OSError, match=r"group-0\.safetensors")
    )
    with expected:
        resume(model, tmp_path, progress=stop_at(CALLS if how == "to the end" else 1, how))
    assert contents(tmp_path) == before
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert_all_same(resume(model, tmp_path), whole)


def test_a_folder_that_cannot_be_made_is_an_os_error(model: titer.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"{tmp_path.name}/file"):
        finetune(model, RUNS, checkpoint=tmp_path / "file" / "folder")
