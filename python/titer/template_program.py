"""The program that renders chat templates, in a process of its own: see `titer.template_process`, which starts it.

Takes one request per line of its input and answers each with one line, both JSON. A template is a stranger's program.
The sandbox of transformers keeps it from Python's objects, but not from looping for ever or from making strings that
fill the memory; here the kernel does. What exceeds its budget ends this process.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

MAX_SECONDS = 3  # of processor time; a template takes milliseconds
OUT_OF_MEMORY = 77  # exit status
TOO_LONG = 78


def budget(size: int) -> int:
    """Return how many bytes may be allocated for an input of that many bytes."""
    return (64 << 20) + 16 * size


def _limit(memory: int) -> None:
    """Allow that much memory and `MAX_SECONDS` of processor time from here on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + memory,
        resource.RLIMIT_CPU: math.ceil(used.ru_utime + used.ru_stime) + MAX_SECONDS,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _render(request: dict[str, Any], size: int) -> list[str]:
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit(budget(size))
    # Keys without a value are left out, as apply_chat_template does.
    conversations = [
        [{key: value for key, value in turn.items() if value is not None} for turn in messages]
        for messages in request["conversations"]
    ]
    rendered, _ = render_jinja_template(
        conversations=conversations,
        chat_template=request["template"],
        add_generation_prompt=request["add_generation_prompt"],
        **request["special_tokens"],
    )
    return [str(text) for text in rendered]


def _special_tokens(request: dict[str, Any], size: int) -> dict[str, Any]:
    from transformers import AutoTokenizer

    folder = Path(request["folder"])
    _limit(budget(sum(file.stat().st_size for file in folder.iterdir() if file.suffix != ".safetensors")))
    tokens = AutoTokenizer.from_pretrained(folder, trust_remote_code=False).special_tokens_map
    return {name: str(token) for name, token in tokens.items() if not isinstance(token, list)}


def _answer(line: bytes) -> bytes:
    request = json.loads(line)
    task = {"render": _render, "special_tokens": _special_tokens}[request["task"]]
    try:
        answer = json.dumps({"answer": task(request, len(line))}).encode()
        if len(answer) > budget(len(line)) // 16:  # which the other side holds more than once
            os._exit(TOO_LONG)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (Exception, SystemExit) as error:
        answer = json.dumps({"error": str(error)[:1000] or type(error).__name__}).encode()
    return answer


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    sys.modules["torch"] = None  # type: ignore[assignment]  # not needed here, and long to import
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(_answer(line) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
