"""Installs the library and builds programs, README's among them, with and without a CUDA toolkit in sight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_models import write_tiny_llama

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    subprocess.run(["cmake", "--install", BUILD, "--prefix", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_llama(folder, seed=0)
    return folder


def path_without_cuda() -> str:
    return os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "nvcc").exists())


@pytest.mark.parametrize("cuda", ["as found", "hidden"])
def test_consumers_build_attack_and_fine_tune(cuda: str, prefix: Path, tiny_folder: Path, tmp_path: Path) -> None:
    environment = dict(os.environ)
    arguments = ["-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", f"-DPython3_EXECUTABLE={sys.executable}"]
    if cuda == "hidden":
        environment["PATH"] = path_without_cuda()
        for name in ("CUDACXX", "CUDA_HOME", "CUDA_PATH"):
            environment.pop(name, None)
        arguments.append("-DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON")
        assert shutil.which("nvcc", path=environment["PATH"]) is None
    for command in (
        ["cmake", "-S", ROOT / "tests" / "install", "-B", tmp_path, *arguments],
        ["cmake", "--build", tmp_path],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([tmp_path / "consumer", tiny_folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stdout
    assert "success" in done.stdout
    adapter = tmp_path / "adapter"
    command = [tmp_path / "finetuner", tiny_folder, adapter]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fast, slow, merged = (line.split()[1:] for line in done.stdout.splitlines())
    assert fast[0] == slow[0] and float(fast[1]) < float(slow[1]) < float(slow[0])
    assert float(merged[0]) < float(fast[0])
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_another_torch_is_refused(prefix: Path, tmp_path: Path) -> None:
    torch = tmp_path / "torch"
    header = torch / "include" / "torch" / "headeronly" / "version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define TORCH_VERSION_MAJOR 1\n#define TORCH_VERSION_MINOR 0\n#define TORCH_VERSION_PATCH 0\n")
    (torch / "include" / "ATen").mkdir()
    (torch / "include" / "ATen" / "ATen.h").touch()
    done = subprocess.run(
        ["cmake", "-S", ROOT / "tests" / "install", "-B", tmp_path / "build", "-G", "Ninja",
         f"-DCMAKE_PREFIX_PATH={prefix}", f"-DTITER_TORCH_ROOT={torch}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "found 1.0.0" in done.stderr
