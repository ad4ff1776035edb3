"""Runs what a model folder's chat template says in a second process, under limits of memory and processor time.

The process starts with the first request, serves all templates, and is replaced when one of them has ended it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titer import template_program

_WAIT_SECONDS = 120  # real time, in case that something blocks: the limit of processor time comes long before


class TemplateProcess:
    """A process that `template_program` runs in. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def ask(self, task: str, **request: Any) -> Any:
        """Return the answer of the program to a request.

        Raises
        ------
        ValueError
            If it refuses, with what it says on one line, or if it exceeds its limits.
        TypeError
            If the request cannot be written as JSON.
        """
        line = json.dumps({"task": task, **request}).encode() + b"\n"
        with self._lock:
            answer = self._exchange(line)
        if "error" in answer:
            raise ValueError(_one_line(answer["error"]))
        return answer["answer"]

    def _exchange(self, line: bytes) -> Mapping[str, Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(_WAIT_SECONDS, process.kill)
        watchdog.start()
        try:
            try:
                process.stdin.write(line)
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = b""
            if not answer:
                raise ValueError(_why(process.wait(), len(line)))
        except BaseException:  # Ctrl-C, too: the answer to this request must not become that to the next one
            self.stop()
            raise
        finally:
            watchdog.cancel()
        content: Mapping[str, Any] = json.loads(answer)
        return content

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.stop()  # somebody has killed it
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", template_program.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Threads would reserve memory of their own, which counts.
                env=os.environ | {"HF_HUB_OFFLINE": "1", "MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
            atexit.register(self.stop)
        return self._process

    def stop(self) -> None:
        """End the process; the next request starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
        atexit.unregister(self.stop)

    def _leave_to_parent(self) -> None:
        """After a fork: the pipes are the parent's, and a thread that held the lock is not here to let go of it."""
        self._lock = threading.Lock()
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with Path(os.devnull).open(
            "r+b", buffering=0
        ) as nothing:  # the process ends when the last writer of its pipe does
            for pipe in (process.stdin, process.stdout):
                os.dup2(nothing.fileno(), pipe.fileno(), inheritable=False)
        process.returncode = 0  # nothing to wait for


def _why(status: int, size: int) -> str:
    if status == -signal.SIGXCPU:
        return f"it takes more than {template_program.MAX_SECONDS} s of processor time"
    if status == template_program.OUT_OF_MEMORY:
        return f"it needs more than {template_program.budget(size) >> 20} MiB of memory"
    if status == template_program.TOO_LONG:
        return f"it writes more than {template_program.budget(size) >> 24} MiB of text"
    return f"it ended the process that renders it, with status {status}"


def _one_line(text: str, limit: int = 300) -> str:
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= limit else line[:limit] + "..."
