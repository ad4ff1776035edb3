"""The committed stubs of the extension are what its docstrings and signatures say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_stubs_are_up_to_date(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pybind11_stubgen", "titer._titer", "--output-dir", str(tmp_path), "--exit-code"],
        check=True,
        capture_output=True,
        env={"PYTHONPATH": str(ROOT / "python"), "PATH": str(Path(sys.executable).parent)},
    )
    generated = tmp_path / "titer" / "_titer.pyi"
    config = ROOT / "pyproject.toml"
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", "--config", config, generated], check=True)
    committed = ROOT / "python" / "titer" / "_titer.pyi"
    assert generated.read_text() == committed.read_text(), "run ./dev stubs"
