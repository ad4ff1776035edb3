"""`./dev bench --device` runs every stage, here on the CPU and on tiny shapes, and goes on where one fails."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import device_run
from device_clock import Deadline, interleaved, rotations
from device_run import DeviceRun, Stage, StageError, configure_command, run_stages

ROOT = Path(__file__).parents[2]


def arguments(tmp_path: Path, **changes: object) -> argparse.Namespace:
    values = {
        "device": "cpu",
        "headers": None,
        "small": True,
        "build": tmp_path / "build",
        "out": tmp_path / "results",
    }
    return argparse.Namespace(**{**values, **changes})


def test_every_stage_runs_on_the_cpu(tmp_path: Path) -> None:
    if not (ROOT / "build" / "libtiter.so").exists():
        pytest.skip("nothing is built in build/")
    script = ROOT / "benchmarks" / "python" / "device_run.py"
    options = ["--device", "cpu", "--small", "--skip-build", "--build", str(ROOT / "build"), "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'python'}:{script.parent}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr

    stages = json.loads((tmp_path / "device_cpu.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["kernel tests", "operations", "GCG steps, small"]
    tests = re.fullmatch(r"(\d+) tests passed on cpu", stages[0]["result"])
    assert tests is not None and int(tests[1]) > 10
    operations = json.loads((tmp_path / "operations_cpu.json").read_text())["results"]
    assert len(operations) == 9
    for operation in operations:
        assert "error" not in operation, operation
        assert operation["difference"] < 0.02
        assert {"titer", "torch"} <= operation["seconds"].keys()
    steps = json.loads((tmp_path / "gcg_step_small_cpu.json").read_text())
    assert steps["largest_loss_difference"] < 0.15 and steps["largest_gradient_difference"] < 0.1
    assert steps["peer"].endswith("with its re-tokenisation filter")
    assert all(run["seconds"] for run in steps["rounds"][0]["runs"].values())
    assert set(steps["rounds"][0]["runs"]["titer"]["candidates"]) == {16}
    assert steps["scoring"]["product_flops"] > 0 and not steps["left_out"]
    for table in ("device_cpu", "operations_cpu", "gcg_step_small_cpu"):
        assert (tmp_path / f"{table}.md").read_text() in done.stdout


@pytest.mark.usefixtures("nanogcg_folder")
def test_steps_are_held_against_nanogcg_itself_where_it_is_installed(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "python" / "device_steps.py"
    options = ["--device", "cpu", "--shape", "small", "--rounds", "1", "--steps", "2", "--search-width", "16"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'python'}:{script.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, *options, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gcg_step_small_cpu.json").read_text())
    assert report["peer"].startswith("nanoGCG 0.3.0; for the parts")
    runs = report["rounds"][0]["runs"]
    assert len(runs["peer_batch_all"]["seconds"]) == len(runs["peer_batch_64"]["seconds"]) == 2
    assert all(0 < count <= 16 for count in runs["peer_batch_all"]["candidates"])


def test_a_failed_stage_is_reported_and_the_next_ones_run(tmp_path: Path) -> None:
    limits = []

    def stage(result: str | Exception) -> Callable[[float], str]:
        def run(seconds: float) -> str:
            limits.append(seconds)
            if isinstance(result, Exception):
                raise result
            return result

        return run

    run = DeviceRun(arguments(tmp_path))
    stages = [
        Stage("one", 2, stage(StageError("it broke"))),
        Stage("two", 1, stage("fine")),
        Stage("three", 1, stage("")),
    ]
    assert run_stages(stages, Deadline(100), run)
    assert limits == pytest.approx([50, 50, 100], abs=10)  # what one leaves over, the next ones share
    table = (tmp_path / "results" / "device_cpu.md").read_text()
    assert "| one | 0 | FAILED: it broke |" in table and "| two | 0 | fine |" in table


def test_commands_are_stopped_in_time_and_say_how_they_ended(tmp_path: Path) -> None:
    run = DeviceRun(arguments(tmp_path))
    log = tmp_path / "log"
    start = time.monotonic()
    with pytest.raises(StageError, match=r"it was stopped after 1 s; see .*log"):
        run._call([sys.executable, "-c", "import time; time.sleep(60)"], 1.0, log, "it")
    assert time.monotonic() - start < 60  # the command was not waited for
    with pytest.raises(StageError, match=r"it ended with 3: out of luck; see .*log"):
        run._call([sys.executable, "-c", "print('out of luck'); raise SystemExit(3)"], 20.0, log, "it")


def test_stages_whose_binary_is_missing_say_so(tmp_path: Path) -> None:
    run = DeviceRun(arguments(tmp_path))
    for stage in (run.kernel_tests, run.operations):
        with pytest.raises(StageError, match=r"was not built"):
            stage(10.0)


def test_kernel_tests_that_missed_the_device_do_not_count(tmp_path: Path) -> None:
    binary = tmp_path / "build" / "tests" / "cpp" / "titer_kernel_tests"
    binary.parent.mkdir(parents=True)
    report = {"testsuites": [{"testsuite": [{"name": "a"}, {"name": "b", "devices": "cpu "}]}]}
    binary.write_text(
        f"#!{sys.executable}\nimport sys\nfile = sys.argv[2].removeprefix('--gtest_output=json:')\n"
        f"open(file, 'w').write('''{json.dumps(report)}''')\n"
    )
    binary.chmod(0o755)
    run = DeviceRun(arguments(tmp_path))
    assert run.kernel_tests(20.0) == "2 tests passed on cpu"
    run.arguments.device = "cuda"
    with pytest.raises(StageError, match="2 tests passed on cpu, not on cuda"):
        run.kernel_tests(20.0)


def test_the_build_is_for_one_gpu_and_takes_headers_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    command = configure_command(arguments(tmp_path, device="cuda", headers=tmp_path / "headers"), tmp_path)
    assert "-DCMAKE_CUDA_ARCHITECTURES=90" in command and "-DTITER_CUDA=ON" in command
    assert f"-DCMAKE_PREFIX_PATH={tmp_path / 'headers' / 'usr'}" in command
    assert f"-DPython3_EXECUTABLE={sys.executable}" in command
    assert f"-DTITER_TORCH_ROOT={Path(torch.__file__).parent}" in command
    monkeypatch.setattr(device_run.sysconfig, "get_path", lambda _: str(tmp_path / "none"))
    assert "-DTITER_PYTHON=OFF" in configure_command(arguments(tmp_path), tmp_path)


def test_without_a_gpu_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"\[bench\] --device cuda: torch .* finds no GPU"):
        device_run.require_device("cuda")


def test_inputs_rotate_through_four_caches_and_methods_take_turns() -> None:
    assert rotations(10, 100) == 40
    assert rotations(10**6, 100) == 2
    order: list[tuple[str, int]] = []
    methods = {name: lambda i, name=name: order.append((name, i)) for name in "ab"}
    seconds, repeats = interleaved(methods, 3, "cpu", repeats=2, target=0.0, deadline=Deadline(60))
    assert repeats == 2 and [len(seconds[name]) for name in "ab"] == [2, 2]
    counted = order[-12:]
    assert counted == [(name, i) for _ in range(2) for name in "ab" for i in range(3)]
    _, repeats = interleaved(methods, 3, "cpu", repeats=5, target=0.0, deadline=Deadline(0))
    assert repeats == 1
