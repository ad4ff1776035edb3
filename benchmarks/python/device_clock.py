"""Times work on a device: CUDA events on a GPU, the wall clock on a CPU, over inputs that no cache holds."""

from __future__ import annotations

import itertools
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

CACHE_FACTOR = 4  # rotating inputs hold this many times the last-level cache


class Deadline:
    """Seconds from now, after which nothing more is started that can be left out."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()


def device_facts(device: str) -> dict[str, Any]:
    """What a reader needs to know of the device."""
    if device == "cpu":
        return {"device": "cpu", "cache_bytes": 0}
    properties = torch.cuda.get_device_properties(device)
    driver = ""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    return {
        "device": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": properties.L2_cache_size,
        "driver": driver,
        "cuda": torch.version.cuda,
    }


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def rotations(bytes_per_set: int, cache_bytes: int) -> int:
    """How many input sets a run goes through so that none is found in the cache."""
    return max(2, -(-CACHE_FACTOR * cache_bytes // max(bytes_per_set, 1)))


def seconds_of(run: Callable[[], Any], device: str) -> float:
    """Seconds from the start of the work to its end, launches included."""
    if device == "cpu":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def interleaved(
    methods: dict[str, Callable[[int], Any]], sets: int, device: str, *, repeats: int, target: float, deadline: Deadline
) -> tuple[dict[str, list[float]], int]:
    """Seconds per call of every method, in turn, and the number of repeats that time allowed.

    Parameters
    ----------
    methods
        Each takes the index of an input set.
    target
        Seconds that one repeat of one method should last, so that events resolve it.
    """
    calls = {}
    for name, method in methods.items():
        for index in range(sets):
            method(index)  # the first calls load kernels and choose algorithms
        once = seconds_of(lambda method=method: method(0), device)  # type: ignore[misc]
        calls[name] = max(sets, min(1000, round(target / max(once, 1e-7))))
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    done = 0
    while done < repeats and (done == 0 or deadline.left > 0):
        for name, method in methods.items():
            rotation = list(itertools.islice(itertools.cycle(range(sets)), calls[name]))
            seconds[name].append(seconds_of(lambda: _run(method, rotation), device) / len(rotation))  # noqa: B023
        done += 1
    return seconds, done


def _run(method: Callable[[int], Any], rotation: Sequence[int]) -> None:
    for index in rotation:
        method(index)


def spread(values: Sequence[float]) -> str:
    """Median and range, for a table."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
