"""Loads models and data sets in a process of its own and measures the memory that takes; `test_bad_inputs` starts it.

Takes one request per line of its input, `{"load": ..., "path": ...}`, and answers each with one line: the exception and
the bytes of memory that it took, with those of the process that renders chat templates.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import titer
from titer.chat import ChatTemplate

MESSAGES = [{"role": "user", "content": "Hello"}]


def load(path: Path) -> None:
    template = titer.load_model(path).chat_template
    if template is not None:
        template.render(MESSAGES)


LOADERS = {
    "model": load,
    "show": titer.models.show,
    "answer": lambda path: titer.generate(titer.load_model(path), "Hello", max_new_tokens=1),
    "dataset": lambda path: titer.Dataset(path / "data.jsonl"),
}


def processes() -> list[str]:
    """Return the numbers of this process and of those that it has started."""
    own = str(os.getpid())
    children = Path(f"/proc/self/task/{own}/children").read_text().split()
    return [own, *children]


def memory(process: str, field: str) -> int:
    """Return a field of a process's status in bytes: VmRSS, the memory it uses, or VmHWM, the most it has used."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def measured(loader: str, path: Path) -> dict[str, Any]:
    ChatTemplate("", {}, "warm").render(MESSAGES)  # what the last request has ended is there again
    before = {}
    for process in processes():
        Path(f"/proc/{process}/clear_refs").write_text("5")  # the most it has used is what it uses
        before[process] = memory(process, "VmRSS")
    answer: dict[str, Any] = {"error": None, "message": ""}
    try:
        LOADERS[loader](path)
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    answer["bytes"] = sum(memory(process, "VmHWM") - before[process] for process in processes() if process in before)
    return answer


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(measured(request["load"], Path(request["path"]))), flush=True)


if __name__ == "__main__":
    main()
