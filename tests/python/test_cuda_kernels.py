"""The CUDA kernels compile for every architecture that is shipped, and none of them keeps registers in memory."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "kernels" / "src"
KERNELS = sorted(path.name for path in (SOURCES / "cuda").glob("*.cu"))
RESOURCES = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")


def test_there_are_kernels() -> None:
    assert len(KERNELS) >= 4


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_without_spills(name: str, architecture: str, tmp_path: Path) -> None:
    options = ["-std=c++20", "-O3", f"-arch={architecture}", "-Xptxas", "-v", "-I.", "-cubin"]
    done = subprocess.run(
        ["nvcc", *options, "-o", tmp_path / "kernels.cubin", f"cuda/{name}"],
        cwd=SOURCES,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kernels = re.findall(r"Compiling entry function '(\w+)'", done.stderr)
    resources = RESOURCES.findall(done.stderr)
    assert len(resources) == len(kernels) > 0
    assert {kernel: used for kernel, used in zip(kernels, resources, strict=True) if used != ("0", "0", "0")} == {}
