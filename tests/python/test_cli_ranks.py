"""The command line tool under torchrun: one result, one report, one exit code, whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import titer
from test_cli import SMALL, arguments, without_effort
from thread_ranks import alone
from titer.cli import main

WAIT = 120  # seconds


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"} | more


def start_ranks(commands: list[list[str]]) -> list[subprocess.Popen[str]]:
    """Start one process of the tool for each command, as torchrun does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "titer", *command],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """What each process returned and printed."""
    printed = [process.communicate(timeout=WAIT) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, printed, strict=True)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def test_torchrun_gives_the_result_of_one_process(tiny_folder: Path, out: Path) -> None:
    log = out.with_name("run.jsonl")
    options = [*SMALL, "batch_size=3"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "titer", "--", *arguments(tiny_folder, out, *options, "--log", str(log), "--json")],
        env=environment(), capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # torchrun's code for any that is not 0
    assert done.stdout == out.read_text()
    assert sorted(file.name for file in out.parent.iterdir()) == ["result.json", "run.jsonl"]
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events == ["start", "step", "step", "step", "result"]
    expected = out.with_name("one.json")
    assert alone(lambda _: main(arguments(tiny_folder, expected, *options))) == 1
    load = titer.attacks.AttackResult.load
    assert without_effort(load(out)) == without_effort(load(expected))


def test_what_stops_rank_0_stops_all_and_is_said_once(tiny_folder: Path, out: Path) -> None:
    out.with_name("result.json.ckpt").touch()
    command = arguments(tiny_folder, out, *SMALL)
    (code, _, report), (other_code, other_out, other_report) = ends(start_ranks([command, command]))
    assert (code, other_code) == (2, 2)
    assert "holds an interrupted run; add --resume" in report
    assert (other_out, other_report) == ("", "")


def test_what_stops_another_rank_stops_all_and_is_said_once(tiny_folder: Path, out: Path) -> None:
    command = arguments(tiny_folder, out, *SMALL)
    absent = arguments(out.with_name("absent"), out, *SMALL)
    (code, printed, report), (other_code, _, other_report) = ends(start_ranks([command, absent]))
    assert (code, other_code) == (2, 2)
    assert "absent" in other_report and "Traceback" not in other_report
    assert (printed, report) == ("", "")
    assert not out.exists()


def running(folder: Path, out: Path) -> list[subprocess.Popen[str]]:
    """Two ranks that have done some steps of a search without end."""
    log = out.with_name("run.jsonl")
    command = arguments(folder, out, "num_steps=1000000", "search_width=12", "--log", str(log))
    processes = start_ranks([command, command])
    while not log.exists() or log.read_text().count('"event":"step"') < 5:
        time.sleep(0.1)
        assert processes[0].poll() is None, processes[0].communicate()
    return processes


@pytest.mark.parametrize("interrupted", [(1,), (0, 1)], ids=["rank 1", "both"])
def test_interrupt_ends_all_ranks_and_keeps_the_checkpoint(
    tiny_folder: Path, out: Path, interrupted: tuple[int, ...]
) -> None:
    processes = running(tiny_folder, out)
    for rank in interrupted:
        processes[rank].send_signal(signal.SIGINT)
        processes[rank].send_signal(signal.SIGINT)  # from the terminal and from torchrun
    (code, _, report), (other_code, other_out, other_report) = ends(processes)
    assert (code, other_code) == (130, 130)
    checkpoint = out.with_name("result.json.ckpt")
    assert f"the finished steps are in {checkpoint}" in report
    assert "Traceback" not in report
    assert (other_out, other_report) == ("", "")
    assert checkpoint.exists() and not out.exists()


def test_a_rank_that_is_killed_ends_the_other(tiny_folder: Path, out: Path) -> None:
    processes = running(tiny_folder, out)
    processes[1].kill()
    code, _, report = ends(processes)[0]
    assert code == 3
    assert f"the finished steps are in {out.with_name('result.json.ckpt')}" in report
    assert "Traceback" not in report
