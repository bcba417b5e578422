"""One training in several processes (torchrun, accelerate launch): which one this is, and what all agree on.

Each process draws the whole batch, computes its share, and takes the same step along the mean gradient;
the first one alone writes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

RANK, COUNT, FIRST = 0, 1, True  # set by `join`: a notebook's processes are started after the import
T = TypeVar("T")


def join() -> None:
    """Meets the other processes; accelerate chooses how they talk. The first one alone prints."""
    global RANK, COUNT, FIRST
    RANK, COUNT = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    FIRST = RANK == 0
    if COUNT > 1:
        from accelerate import PartialState

        PartialState(timeout=timedelta(hours=12))  # the first one may sample class images meanwhile
    if not FIRST:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def told(value: T) -> T:
    """Gives the first process's value in all of them."""
    values = [value]
    if COUNT > 1:
        import torch.distributed as dist

        dist.broadcast_object_list(values)
    return values[0]


def average(tensors: Iterable[torch.Tensor | None]) -> None:
    """Replaces tensors by their mean over the processes."""
    if COUNT > 1:
        import torch.distributed as dist

        started = [(dist.all_reduce(one, async_op=True), one) for one in tensors if one is not None]
        for work, one in started:
            work.wait()
            one /= COUNT


def any_of_us(asked: bool, device: torch.device) -> bool:
    """Whether one of the processes was asked to stop: all leave the loop after the same step."""
    if COUNT == 1:
        return asked
    import torch
    import torch.distributed as dist

    flag = torch.tensor(int(asked), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)
