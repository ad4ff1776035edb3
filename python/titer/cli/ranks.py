"""The processes that torchrun starts for one command: rank 0 writes and reports, and all of them end alike."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from titer.cli.exit_codes import ExitCode, OtherRankFailedError, exit_code

if TYPE_CHECKING:
    from titer import Shard


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among those of the command; a process that torchrun did not start is rank 0 of 1."""

    shard: Shard | None = None
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.shard is None or self.shard.rank == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave the block when every rank has; where it fails on some, the first of them says why and all fail."""
        if self.shard is None:
            yield
            return
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
        try:
            codes = self._codes(0 if failure is None else exit_code(failure))
        except RuntimeError as lost:
            raise failure or lost from None
        if ExitCode.INTERRUPTED in codes:
            raise KeyboardInterrupt
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is None:
            return
        if failure is not None and failed == self.shard.rank:
            raise failure
        raise OtherRankFailedError(codes[failed]) from failure

    def _codes(self, own: int) -> list[int]:
        import torch
        from torch import distributed

        codes = [torch.zeros(1, dtype=torch.int64) for _ in range(distributed.get_world_size())]
        distributed.all_gather(codes, torch.tensor([own]))
        return [int(code) for code in codes]

    def device(self, name: str) -> str:
        """Return the device of this rank: with several on a machine, `cuda` is one for each."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.shard is not None else name


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it started this one.

    They exchange through gloo, also where the models are on CUDA devices: it is little, and lies on the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    from torch import distributed

    signal.signal(signal.SIGINT, _interrupt_once)  # for good: the command ends with this
    # Ranks wait for one that fetches a model, or whose search rests; whether one has died is torchrun's to see.
    distributed.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        from titer import Shard

        yield Ranks(Shard.from_process_group(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        distributed.destroy_process_group()


def _interrupt_once(*_: Any) -> None:
    """Handle Ctrl-C, which may come from the terminal and from torchrun; the second would interrupt the clean end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
