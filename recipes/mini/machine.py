"""Where a stage computes: device, precision, and how several one-thread processes share one training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True)
class Machine:
    """The device and precision of this process, and its place among the processes that train together."""

    device: torch.device
    bf16: bool
    rank: int
    processes: int

    @property
    def leads(self) -> bool:
        """Whether this process prints, evaluates and saves."""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """bfloat16 autocast where the machine multiplies in it quickly, else nothing."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def attention(self) -> contextlib.AbstractContextManager[None]:
        """The quickest attention: on the CPU plain matrix products, as the fused one's backward is slow."""
        if self.device.type == "cpu":
            return sdpa_kernel(SDPBackend.MATH)
        return contextlib.nullcontext()

    def wait(self) -> None:
        """Until every process is here."""
        if self.processes > 1:
            dist.barrier()

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each process's gradients by their mean over the processes, in one message."""
        if self.processes == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.processes
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agreed(self, value: float) -> float:
        """The leading process's value, in all processes: clocks differ, decisions by time must not."""
        if self.processes == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared)


def machine(device: str = "auto") -> Machine:
    """Choose the device and precision, join the processes that `torchrun` started, and say what was chosen.

    One thread a process on the CPU: two threads of one process wait for each other at every layer, and where
    something else runs on the machine this makes them several times slower (600 instead of 250 ms a picture).

    Args:
        device: "auto", or a torch device such as "cpu" or "cuda:0".
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    if chosen.type == "cpu" and processes > 1:
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    bf16 = torch.cuda.is_bf16_supported(False) if chosen.type == "cuda" else _fast_bf16_on_cpu()
    rank = int(os.environ.get("RANK", "0"))
    if rank == 0:
        precision = "bfloat16 autocast" if bf16 else "float32, as this machine has no fast bfloat16"
        print(
            f"device: {chosen}, {precision}, {processes} process(es) of {torch.get_num_threads()} thread(s)",
            flush=True,
        )
    return Machine(chosen, bf16, rank, processes)


def _fast_bf16_on_cpu() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())
