"""`./dev` says what it can do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

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
