"""What this machine is and can do: the device, the dtype, and why they were chosen."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "numpy",
)

_GB = 1e9


@dataclass(frozen=True)
class Machine:
    """What the stages need to know about this computer.

    Args:
        device: `cuda`, `mps` or `cpu`.
        device_reason: Why this device was chosen.
        dtype: The name of a torch dtype: what sampling runs in and what mixed precision would use here.
        dtype_reason: Why this dtype was chosen.
        processor: The name of the GPU, or of the processor where there is none.
        gpu_memory: Memory of the GPU in bytes, 0 without one.
        memory: Main memory in bytes.
        memory_free: Main memory that is available now, in bytes.
        disk_free: Free bytes on the disk of the working directory.
        cores: Processor cores that this process may use.
    """

    device: str
    device_reason: str
    dtype: str
    dtype_reason: str
    processor: str
    gpu_memory: int
    memory: int
    memory_free: int
    disk_free: int
    cores: int


def this_machine() -> Machine:
    """Look at the computer that this runs on.

    Returns:
        The machine. Nothing is allocated on the GPU.
    """
    import psutil

    device, device_reason = choose_device()
    dtype, dtype_reason = choose_dtype(device)
    memory = psutil.virtual_memory()
    return Machine(
        device=device,
        device_reason=device_reason,
        dtype=dtype,
        dtype_reason=dtype_reason,
        processor=_processor(device),
        gpu_memory=_gpu_memory(device),
        memory=memory.total,
        memory_free=memory.available,
        disk_free=shutil.disk_usage(".").free,
        cores=_cores(),
    )


def device() -> torch.device:
    """The device that models are put on: CUDA before Apple's GPU before the CPU.

    Returns:
        The device. `ACCELERATE_USE_CPU=1` in the environment keeps it on the CPU, as it does in accelerate.
    """
    import torch

    return torch.device(choose_device()[0])


def dtype() -> torch.dtype:
    """The dtype that suits this machine's device: see `choose_dtype`."""
    import torch

    chosen: torch.dtype = getattr(torch, choose_dtype(choose_device()[0])[0])
    return chosen


def free_memory() -> None:
    """Gives back memory that nothing uses any more, on the GPU too."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_device() -> tuple[str, str]:
    """Choose the device, and say why.

    Returns:
        Its type (`cuda`, `mps` or `cpu`) and the reason, as half a sentence after 'because'.
    """
    import torch
    from accelerate.utils import parse_flag_from_env

    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return "cpu", "ACCELERATE_USE_CPU is set"
    if torch.cuda.is_available():
        return "cuda", f"torch sees {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "mps", "torch sees an Apple GPU"
    if torch.version.cuda is None and torch.version.hip is None:
        return "cpu", "this build of torch has no CUDA"
    return "cpu", "torch sees no CUDA device"


def choose_dtype(device: str) -> tuple[str, str]:
    """Choose the dtype that a device is good at, and say why.

    `torch.cuda.is_bf16_supported()` alone says yes on a T4, which only emulates bfloat16 and is slow at it;
    hence `including_emulation=False`.

    Args:
        device: `cuda`, `mps` or `cpu`.

    Returns:
        The name of the torch dtype and the reason, as half a sentence after 'because'.
    """
    import torch

    if device != "cuda":
        return "float32", f"half precision on {device} is slower or less exact than float32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", f"{torch.cuda.get_device_name()} computes in bfloat16 natively"
    return "float16", f"{torch.cuda.get_device_name()} only emulates bfloat16"


def versions() -> dict[str, str | None]:
    """The installed versions of the packages that decide a result.

    Returns:
        Package name to version, None where it is not installed. Nothing is imported.
    """
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def can_run(machine: Machine) -> dict[str, tuple[bool, str]]:
    """What of the course a machine can do.

    Args:
        machine: From `this_machine()`.

    Returns:
        The name of the work to whether it fits, and what it needs.

    Source: memory for DreamBooth: diffusers, examples/dreambooth/README.md; images and LoRA are estimates.
    """
    needs = {  # GPU memory and disk, in GB
        "mini: the whole course": (0, 1),
        "sd15: images": (6, 10),
        "sd15: LoRA": (8, 10),
        "sd15: DreamBooth, UNet only": (16, 30),
        "sd15: DreamBooth, UNet and text encoder": (24, 30),
    }
    found = {}
    for work, (gpu, disk) in needs.items():
        # A "16 GB" card shows a little less than 16 GB.
        fits = machine.gpu_memory >= 0.9 * gpu * _GB and machine.disk_free >= disk * _GB
        found[work] = (
            fits,
            f"any processor, {disk} GB of disk" if not gpu else f"{gpu} GB GPU, {disk} GB of disk",
        )
    return found


def describe(machine: Machine | None = None) -> str:
    """Say what a machine is, what was chosen on it, and why.

    Args:
        machine: From `this_machine()`; looked at now if None.

    Returns:
        Three lines of text, for `check_env.py` and the head of a training log.
    """
    machine = machine or this_machine()
    gpu = f" with {machine.gpu_memory / _GB:.0f} GB" if machine.gpu_memory else ""
    return "\n".join(
        [
            f"using {machine.device} because {machine.device_reason}",
            f"using {machine.dtype} because {machine.dtype_reason}",
            f"{machine.processor}{gpu}, cores: {machine.cores}, "
            f"memory: {machine.memory_free / _GB:.0f} of {machine.memory / _GB:.0f} GB free, "
            f"disk: {machine.disk_free / _GB:.0f} GB free",
        ]
    )


def _gpu_memory(device: str) -> int:
    import torch

    return int(torch.cuda.get_device_properties().total_memory) if device == "cuda" else 0


def _cores() -> int:
    # A container or a cluster job often may use fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor(device: str) -> str:
    import torch

    if device == "cuda":
        return str(torch.cuda.get_device_name())
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
