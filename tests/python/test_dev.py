"""`./dev` says what it can do, and its fuzz targets are searched as asked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEV = Path(__file__).parents[2] / "dev"
COMMANDS = set(re.findall(r"^  (\w+)\) ", DEV.read_text(encoding="utf-8"), re.MULTILINE))


def dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DEV, *arguments], capture_output=True, text=True)


def test_help_lists_every_command_and_nothing_of_the_script() -> None:
    assert len(COMMANDS) > 5
    for arguments in ([], ["help"], ["--help"]):
        done = dev(*arguments)
        assert done.returncode == 0 and done.stderr == ""
        assert set(re.findall(r"^  \./dev (\w+)", done.stdout, re.MULTILINE)) == COMMANDS
        assert "set -" not in done.stdout and "#" not in done.stdout


def test_unknown_command_is_named() -> None:
    done = dev("tset")
    assert done.returncode == 2 and done.stdout == ""
    assert "[dev] unknown command 'tset'" in done.stderr and "./dev test" in done.stderr


TARGET = """#!/bin/sh
echo "$0 $*"
for argument; do case "$argument" in -artifact_prefix=*) prefix=${argument#*=} ;; esac; done
case "$0" in *json_fuzzer) echo bad >"${prefix}crash-1"; exit 77 ;; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which `dev` finds everything set up and built, and fuzz targets of which the first fails."""
    shutil.copy(DEV, tmp_path / "dev")
    binaries = tmp_path / "binaries"
    targets = tmp_path / "build" / "sanitize" / "tests" / "fuzz"
    site = tmp_path / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for folder in (binaries, targets, site, tmp_path / ".venv" / "bin", tmp_path / "tests" / "fuzz"):
        folder.mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / ".venv" / "requirements.sha256").write_text(f"{hashlib.sha256(b'').hexdigest()}  requirements.txt\n")
    (tmp_path / "build" / "sanitize" / "build.ninja").touch()
    scripts = {binaries / "cmake": "#!/bin/sh\n", binaries / "dpkg-query": "#!/bin/sh\nprintf installed\n"}
    for name in ("json", "tokenizer"):
        (tmp_path / "tests" / "fuzz" / f"{name}_fuzzer.cpp").touch()
        scripts[targets / f"{name}_fuzzer"] = TARGET
    for file, text in scripts.items():
        file.write_text(text)
        file.chmod(0o755)
    return tmp_path


def run_fuzz(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{checkout / 'binaries'}:{os.environ['PATH']}"}
    return subprocess.run([checkout / "dev", "fuzz", *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes"], "--minutes expects a whole number from 1, got ''"),
        (["--minutes", "0"], "--minutes expects a whole number from 1, got '0'"),
        (["--minutes", "1.5"], "--minutes expects a whole number from 1, got '1.5'"),
        (["--minutes", "-1", "json"], "--minutes expects a whole number from 1, got '-1'"),
        (["60"], "expected --minutes N or one of: json tokenizer; got '60'"),
        (["json", "xml"], "got 'xml'"),
        (["*"], "got '*'"),
        (["json tokenizer"], "got 'json tokenizer'"),
        (["--seconds", "5"], "got '--seconds'"),
        ([""], "got ''"),
        (["../fuzz/json"], "got '../fuzz/json'"),
    ],
)
def test_fuzz_refuses_what_it_does_not_know(checkout: Path, arguments: list[str], message: str) -> None:
    done = run_fuzz(checkout, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("[dev] fuzz: ") and message in done.stderr


def test_fuzz_runs_every_target_and_says_which_failed(checkout: Path) -> None:
    done = run_fuzz(checkout)
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [f"build/sanitize/tests/fuzz/{name}_fuzzer", "-max_total_time=60"] for name in ("json", "tokenizer")
    ]
    for name, line in zip(("json", "tokenizer"), done.stdout.splitlines(), strict=True):
        assert line.endswith(f" build/sanitize/tests/fuzz/found/{name} tests/fuzz/corpus/{name}")
        assert (checkout / "build/sanitize/tests/fuzz/found" / name).is_dir()
    folder = checkout / "build" / "sanitize" / "tests" / "fuzz"
    assert f"[dev] json failed; the inputs lie in {folder}: json-crash-1\n" in done.stderr
    assert (folder / "json-crash-1").is_file()


def test_fuzz_takes_minutes_and_targets(checkout: Path) -> None:
    done = run_fuzz(checkout, "--minutes", "10", "tokenizer")
    assert (done.returncode, done.stderr.count("[dev]")) == (0, 0), done.stderr
    (line,) = done.stdout.splitlines()
    assert "tokenizer_fuzzer -max_total_time=600 " in line


def test_bench_on_a_device_needs_a_python_with_torch(checkout: Path) -> None:
    python = checkout / "binaries" / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    environment = os.environ | {"PATH": f"{checkout / 'binaries'}:{os.environ['PATH']}"}
    command = [checkout / "dev", "bench", "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr == f"[dev] bench --device: {python} has no torch; put the python3 that does first in PATH\n"


def test_bench_on_a_device_installs_nothing_and_takes_its_options_on(checkout: Path) -> None:
    python = checkout / "binaries" / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] || echo "$PYTHONPATH $*"\n')
    python.chmod(0o755)
    environment = os.environ | {"PATH": f"{checkout / 'binaries'}:{os.environ['PATH']}", "PYTHONPATH": "mine"}
    command = [checkout / "dev", "bench", "--device", "cuda", "--headers", "a b", "--minutes", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "python:benchmarks/python:mine benchmarks/python/device_run.py --device cuda --headers a b --minutes 3\n"
    )
