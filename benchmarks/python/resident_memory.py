"""What this process holds in memory, from Linux's /proc."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path


def resident_after_release() -> int:
    """Bytes held once what is free went back to the system; the high-water mark starts again from here."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM to the present size
    return _bytes("VmRSS")


def peak() -> int:
    """The high-water mark in bytes."""
    return _bytes("VmHWM")


def _bytes(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024
