"""Builds, checks and measures everything on one device, in one command of bounded time and without a network.

    ./dev bench --device cuda [--headers FOLDER] [--minutes 8] [--shapes 135m 1b 7b]

Needs on PATH: python3 with torch, a C++ compiler, cmake (3.28 or newer), ninja and, for a GPU, nvcc. `--headers` is
what `./dev headers FOLDER` makes where there is a network. Stages: build (for this GPU alone, in build/device), every
operation against float64, times of operations, GCG steps at each shape. Each stage is a process with its share of the
time that is left, writes its results as it goes, and what fails or runs out of time is reported while the next ones
still run. benchmarks/results/device_<device>.md says what happened.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from device_clock import Deadline, device_facts
from report import RESULTS, machine, write

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "device"
SCRIPTS = Path(__file__).parent
# What concerns the processor alone is left to ./dev test.
KERNEL_TESTS = "-*instruction_set*:*threads*:*gradcheck*:*last_bit*"


@dataclass(frozen=True)
class Stage:
    name: str
    weight: float  # its share of the time that is left, relative to the stages behind it
    run: Callable[[float], str]  # from the seconds that it may take to one line about what came of it


class StageError(Exception):
    """A stage ended without its result; the message is one line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True, choices=["cuda", "cpu"])
    parser.add_argument("--headers", type=Path, help="folder of unpacked packages, with usr/include in it")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--shapes", nargs="+", default=["135m", "1b", "7b"])
    parser.add_argument("--small", action="store_true", help="a dry run on tiny shapes")
    parser.add_argument("--build", type=Path, default=BUILD, help="where the build goes")
    parser.add_argument("--skip-build", action="store_true", help="use what is built there")
    parser.add_argument("--out", type=Path, help="where results go; by default benchmarks/results, of a CPU the build")
    arguments = parser.parse_args()
    arguments.out = arguments.out or (RESULTS if arguments.device == "cuda" else arguments.build / "results")
    require_device(arguments.device)
    if arguments.headers is not None and not (arguments.headers / "usr" / "include").is_dir():
        raise SystemExit(f"[bench] --headers: expected a folder with usr/include in it, got {arguments.headers}")

    run = DeviceRun(arguments)
    stages = [Stage("build", 50, run.build)] if not arguments.skip_build else []
    stages += [Stage("kernel tests", 14, run.kernel_tests), Stage("operations", 10, run.operations)]
    shapes = ["small"] if arguments.small else arguments.shapes
    stages += [
        Stage(f"GCG steps, {shape}", 10 + 2 * i, lambda s, shape=shape: run.steps(shape, s))  # type: ignore[misc]
        for i, shape in enumerate(shapes)
    ]
    failed = run_stages(stages, Deadline(60 * arguments.minutes), run)
    run.show_tables()
    sys.exit(1 if failed else 0)


def require_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"[bench] --device cuda: torch {torch.__version__} ({sys.executable}) finds no GPU; put the python3 whose "
            "torch does first in PATH"
        )


def run_stages(stages: list[Stage], deadline: Deadline, run: DeviceRun) -> bool:
    """Runs them in order, each within its share of the time left, and says whether one failed."""
    failed = False
    for index, stage in enumerate(stages):
        behind = sum(other.weight for other in stages[index:])
        limit = deadline.left * stage.weight / behind
        print(f"== {stage.name}, at most {limit:.0f} s", file=sys.stderr, flush=True)
        start = time.monotonic()
        entry: dict[str, Any] = {"stage": stage.name, "limit_seconds": limit}
        try:
            entry["result"] = stage.run(limit)
        except (StageError, OSError) as error:
            failed = True
            entry["failed"] = str(error)
        entry["seconds"] = time.monotonic() - start
        print(f"   {entry.get('result', entry.get('failed'))} ({entry['seconds']:.0f} s)", file=sys.stderr, flush=True)
        run.record(entry)
    return failed


class DeviceRun:
    """The stages of one run and what they share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.build_folder: Path = arguments.build.resolve()
        self.out: Path = arguments.out
        self.tables: list[str] = []
        self.report: dict[str, Any] = {
            "machine": machine() | device_facts(arguments.device),
            "command": " ".join(["./dev", "bench", *sys.argv[1:]]),
            "stages": [],
        }

    def record(self, entry: dict[str, Any]) -> None:
        self.report["stages"].append(entry)
        write(self.out, f"device_{self.arguments.device}", self.report, stage_table(self.report), show=False)

    def show_tables(self) -> None:
        for name in [f"device_{self.arguments.device}", *self.tables]:
            file = self.out / f"{name}.md"
            print(file.read_text(encoding="utf-8") if file.is_file() else f"{name}: nothing was written\n")

    def build(self, seconds: float) -> str:
        deadline = Deadline(seconds)
        missing = [tool for tool in build_tools(self.arguments.device) if shutil.which(tool) is None]
        if missing:
            raise StageError(f"not on PATH: {', '.join(missing)}")
        log = self.build_folder / "build.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        bindings = python_headers(self.arguments.headers) is not None
        self._call(configure_command(self.arguments, self.build_folder), deadline.left, log, "cmake")
        # Every target that can be built is: the stages behind need different ones.
        targets = ["titer", "titer_kernel_tests"] + (["titer_python"] if bindings else [])
        command = ["cmake", "--build", str(self.build_folder), "--target", *targets, "--", "-k", "0"]
        self._call(command, deadline.left, log, "the build")
        if not bindings:
            raise StageError("Python.h was not found, so there are no bindings and no GCG steps; the rest is built")
        return f"for torch {torch.__version__}; log in {log}"

    def kernel_tests(self, seconds: float) -> str:
        binary = self.build_folder / "tests" / "cpp" / "titer_kernel_tests"
        result = self.out / f"kernel_tests_{self.arguments.device}.json"
        result.parent.mkdir(parents=True, exist_ok=True)
        result.unlink(missing_ok=True)
        if not binary.exists():
            raise StageError(f"{binary} was not built")
        filters = "*one_row*:Devices.*" if self.arguments.small else KERNEL_TESTS
        command = [str(binary), f"--gtest_filter={filters}", f"--gtest_output=json:{result}", "--gtest_brief=1"]
        log = self.build_folder / "kernel_tests.log"
        log.unlink(missing_ok=True)
        try:
            self._call(command, seconds, log, "titer_kernel_tests")
        except StageError as error:
            failures = [line for line in log.read_text(errors="replace").splitlines() if "FAILED" in line]
            raise StageError(f"{error}; {len(failures)} lines of failures, first {failures[:1]}") from None
        content = json.loads(result.read_text(encoding="utf-8"))
        tests = [test for suite in content["testsuites"] for test in suite["testsuite"]]
        devices = next((test["devices"].split() for test in tests if "devices" in test), [])
        passed = f"{len(tests)} tests passed on {' and '.join(devices)}"
        if self.arguments.device not in devices:
            raise StageError(f"{passed}, not on {self.arguments.device}")
        return passed

    def operations(self, seconds: float) -> str:
        library = self.build_folder / "libtiter.so"
        if not library.exists():
            raise StageError(f"{library} was not built")
        options = ["--library", str(library)] + (["--small", "--repeats", "2"] if self.arguments.small else [])
        return self._measure("device_ops.py", f"operations_{self.arguments.device}", options, seconds)

    def steps(self, shape: str, seconds: float) -> str:
        options = ["--shape", shape]
        if self.arguments.small:
            options += ["--rounds", "1", "--steps", "2", "--search-width", "16", "--restated"]
        return self._measure("device_steps.py", f"gcg_step_{shape}_{self.arguments.device}", options, seconds)

    def _measure(self, script: str, name: str, options: list[str], seconds: float) -> str:
        """Runs a script that writes `name`, with a soft limit well inside the hard one."""
        self.tables.append(name)
        for suffix in (".json", ".md"):
            (self.out / f"{name}{suffix}").unlink(missing_ok=True)  # of an earlier run
        command = [sys.executable, str(SCRIPTS / script), "--device", self.arguments.device, *options]
        command += ["--seconds", f"{0.7 * seconds:.0f}", "--out", str(self.out)]
        log = self.build_folder / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        self._call(command, seconds, log, script)
        return f"{name}.md"

    def _call(self, command: list[str], seconds: float, log: Path, what: str) -> None:
        """Runs a command with its output in a log; raises with the last lines of it."""
        path = [str(ROOT / "python"), str(SCRIPTS), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, process_group=0
            )
            try:
                code = process.wait(timeout=max(seconds, 1))
            except subprocess.TimeoutExpired:
                raise StageError(f"{what} was stopped after {seconds:.0f} s; see {log}") from None
            finally:
                with contextlib.suppress(ProcessLookupError):  # a build has children of its own
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if "error:" in line or "CMake Error" in line]
            tail = lines[-12:]
            print("\n".join([*errors[:12], *tail]), file=sys.stderr)  # a build's errors lie far from its end
            raise StageError(f"{what} ended with {code}: {tail[-1] if tail else 'no output'}; see {log}")


def build_tools(device: str) -> list[str]:
    return ["cmake", "ninja", "c++"] + (["nvcc"] if device == "cuda" else [])


def python_headers(headers: Path | None) -> Path | None:
    """The folder of Python.h of this interpreter: its own, or in the folder of unpacked packages."""
    name = "python{}.{}".format(*sys.version_info)
    folders = [Path(sysconfig.get_path("include"))] + ([headers.resolve() / "usr/include" / name] if headers else [])
    return next((folder for folder in folders if (folder / "Python.h").is_file()), None)


def configure_command(arguments: argparse.Namespace, folder: Path) -> list[str]:
    include = python_headers(arguments.headers)
    options: dict[str, str] = {
        "CMAKE_BUILD_TYPE": "Release",
        "Python3_EXECUTABLE": sys.executable,
        "TITER_TORCH_ROOT": str(Path(torch.__file__).parent),
        "TITER_TESTS": "ON",
        "TITER_CUDA": "ON" if arguments.device == "cuda" else "OFF",
        "TITER_PYTHON": "ON" if include else "OFF",
    }
    if include is not None:
        options["Python3_INCLUDE_DIR"] = str(include)
    if arguments.device == "cuda":
        options["CMAKE_CUDA_ARCHITECTURES"] = "{}{}".format(*torch.cuda.get_device_capability())
    if arguments.headers is not None:
        options["CMAKE_PREFIX_PATH"] = str(arguments.headers.resolve() / "usr")
    if shutil.which("ccache"):
        options["CMAKE_CXX_COMPILER_LAUNCHER"] = options["CMAKE_CUDA_COMPILER_LAUNCHER"] = "ccache"
    if shutil.which("mold"):
        options["CMAKE_LINKER_TYPE"] = "MOLD"
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    return ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *definitions]


def stage_table(report: dict[str, Any]) -> str:
    where = report["machine"]
    lines = [f"{where['device']}, torch {where['torch']}; `{report['command']}`.", "", "| stage | seconds | |"]
    lines.append("|---|---|---|")
    for entry in report["stages"]:
        what = entry["result"] if "result" in entry else f"FAILED: {entry['failed']}"
        lines.append(f"| {entry['stage']} | {entry['seconds']:.0f} | {what} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
