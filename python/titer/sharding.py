"""Several processes that share the scoring of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer._titer import Shard as _Shard

if TYPE_CHECKING:
    from torch import Tensor


class Shard(_Shard):
    """One rank of several, and how it reaches the others.

    Every rank makes the same calls, with the same shard: ``attack.run(system, prompt, shard=shard)`` or
    ``system.open(prompt, shard=shard)``. Each computes its part of the candidates, and all get the same results: on
    equal machines with equally many threads those of one process, bit for bit. Of what the ranks are given, that of
    rank 0 counts, and it alone reads and writes files and calls callbacks. A failure on one rank is an error on all. A
    rank that dies without a word is noticed by the process group, or by torchrun, which ends the others.

    Parameters
    ----------
    rank : int
        Of this process, from 0 to `world` - 1.
    world : int
        Number of ranks.
    all_gather : callable
        Takes a tensor and returns the list of those of all ranks, in order of rank.
    broadcast : callable
        Overwrites a tensor with that of rank 0.

        Both are called at the same point on every rank, with contiguous CPU tensors of the same shape and dtype, in
        a thread other than the caller's, so that Ctrl-C does not part the ranks in the middle of an exchange.

    Raises
    ------
    ValueError
        If `rank` or `world` are out of range.

    Examples
    --------
    >>> shard = titer.Shard(0, 1, all_gather=lambda tensor: [tensor], broadcast=lambda tensor: None)
    >>> titer.attacks.GCG(num_steps=1, search_width=4).run(titer.System(model), prompt, shard=shard).stop_reason
    'num_steps'
    """

    @classmethod
    def from_process_group(cls, group: Any = None) -> Shard:
        """Return the place of this process in a group of `torch.distributed`.

        Parameters
        ----------
        group : ProcessGroup, optional
            The default group where None. What ranks exchange lies on the CPU; with NCCL it goes through the CUDA
            device that is current now. While a call runs, the group must be used for nothing else.

        Raises
        ------
        ValueError
            If `torch.distributed` is not initialised, or this process is not in the group.
        """
        import torch
        from torch import distributed

        if not distributed.is_initialized():
            raise ValueError(
                "[shard] torch.distributed is not initialised; call init_process_group first, and start with torchrun"
            )
        rank, world = distributed.get_rank(group), distributed.get_world_size(group)
        if rank < 0:
            raise ValueError("[shard] this process is not in the group; give one that it is in")
        first = 0 if group is None else distributed.get_global_rank(group, 0)
        nccl = distributed.get_backend(group) == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")

        def all_gather(tensor: Tensor) -> list[Tensor]:
            own = tensor.to(device)
            parts = [torch.empty_like(own) for _ in range(world)]
            distributed.all_gather(parts, own, group=group)
            return [part.cpu() for part in parts]

        def broadcast(tensor: Tensor) -> None:
            shared = tensor.to(device)
            distributed.broadcast(shared, src=first, group=group)
            if shared is not tensor:
                tensor.copy_(shared)

        return cls(rank, world, all_gather, broadcast)
