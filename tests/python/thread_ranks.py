"""Ranks as threads of one process: what is true of them is true of processes, and a test of them takes no seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

import titer

TIMEOUT = 60.0  # seconds that a rank waits for the others before the test fails


class Exchange:
    """What `world` threads tell each other. Ranks that call different functions, or differ in shape, fail."""

    def __init__(self, world: int) -> None:
        self._barrier = threading.Barrier(world, timeout=TIMEOUT)
        self._given: list[tuple[str, torch.Tensor]] = [("", torch.empty(0))] * world

    def shard(self, rank: int) -> titer.Shard:
        def exchange(name: str, tensor: torch.Tensor) -> list[torch.Tensor]:
            assert tensor.is_contiguous() and tensor.device.type == "cpu"
            self._given[rank] = (name, tensor.clone())
            self._barrier.wait()
            given = list(self._given)
            self._barrier.wait()
            kinds = {(called, tuple(other.shape), other.dtype) for called, other in given}
            assert len(kinds) == 1, kinds
            return [other for _, other in given]

        def broadcast(tensor: torch.Tensor) -> None:
            tensor.copy_(exchange("broadcast", tensor)[0])

        return titer.Shard(
            rank, len(self._given), all_gather=lambda own: exchange("all_gather", own), broadcast=broadcast
        )


def on_ranks(world: int, work: Callable[[titer.Shard], Any]) -> list[Any]:
    """Call `work` on every rank, with one thread of computing each; return what it returned or raised."""
    exchange = Exchange(world)

    def one(rank: int) -> Any:
        torch.set_num_threads(1)
        try:
            return work(exchange.shard(rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(one, range(world)))


def alone(work: Callable[[titer.Shard | None], Any]) -> Any:
    """Call `work` as one process does it, with as many threads as a rank has."""
    (result,) = on_ranks(1, lambda shard: work(None))
    if isinstance(result, Exception):
        raise result
    return result
