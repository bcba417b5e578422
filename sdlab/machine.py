"""What this machine is and can do: the device, the dtype, and why they were chosen."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = "torch diffusers transformers peft accelerate bitsandbytes safetensors numpy"
# GPU memory and disk in GB. float32 DreamBooth: diffusers, examples/dreambooth/README.md; the others are
# reckoned from SD 1.5's 982 million weights, not measured on a GPU.
NEEDS = {
    "mini: the whole course": (0, 1),
    "sd15-8gb: images, ControlNet": (6, 10),
    "sd15-8gb: LoRA": (8, 10),
    "sd15-16gb: DreamBooth with text encoder": (16, 30),
    "sd15: the same in float32": (24, 30),
}
_GB = 1e9


@dataclass(frozen=True)
class Machine:
    """What the stages need to know about this computer; memory and disk in bytes."""

    device: str  # cuda, mps or cpu
    device_reason: str  # half a sentence after 'because'
    dtype: str  # what sampling runs in and what mixed precision would use here
    dtype_reason: str
    processor: str  # the GPU, or the processor where there is none
    gpu_memory: int  # on a Mac what the GPU may take of the common memory; 0 without a GPU
    memory: int
    memory_free: int
    disk_free: int  # where the working directory is
    cores: int  # that this process may use


def this_machine() -> Machine:
    """Looks at the computer that this runs on; nothing is allocated on its GPU."""
    import psutil

    device, memory = choose_device(), psutil.virtual_memory()
    # A container or a cluster job often may use fewer cores than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    disk = shutil.disk_usage(".").free
    dtype, processor = choose_dtype(device[0]), _processor(device[0])
    return Machine(*device, *dtype, *processor, memory.total, memory.available, disk, cores)


def device() -> torch.device:
    """The device that models are put on; `ACCELERATE_USE_CPU=1` keeps it on the CPU, as in accelerate."""
    import torch

    return torch.device(choose_device()[0])


def free_memory() -> None:
    """Gives back memory that nothing uses any more, on the GPU too."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_device() -> tuple[str, str]:
    """CUDA before Apple's GPU before the CPU, and why, as half a sentence after 'because'."""
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
    """The torch dtype that a device is good at, and why.

    `torch.cuda.is_bf16_supported()` alone says yes on a T4, which only emulates bfloat16 and is slow at it.
    """
    import torch

    if device != "cuda":
        return "float32", f"half precision on {device} is slower or less exact than float32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", f"{torch.cuda.get_device_name()} computes in bfloat16 natively"
    return "float16", f"{torch.cuda.get_device_name()} only emulates bfloat16"


def versions() -> dict[str, str | None]:
    """The versions of the packages that decide a result, None where one isn't installed; imports nothing."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {package: version(package) for package in PACKAGES.split()}


def can_run(machine: Machine) -> dict[str, tuple[bool, str]]:
    """What of the course fits a machine, by profile and work, and what it needs."""

    def fits(gpu: int, disk: int) -> bool:  # a "16 GB" card shows a little less than 16 GB
        return machine.gpu_memory >= 0.9 * gpu * _GB and machine.disk_free >= disk * _GB

    return {
        work: (fits(gpu, disk), f"{f'{gpu} GB GPU' if gpu else 'any processor'}, {disk} GB of disk")
        for work, (gpu, disk) in NEEDS.items()
    }


def capabilities(machine: Machine) -> dict[str, tuple[bool, str]]:
    """Whether half precision and 8-bit Adam work here, and what to do where they don't."""
    cuda = machine.device == "cuda"
    slow = f"slow on {machine.device}: leave mixed_precision at 'no'"
    native = "native" if machine.dtype == "bfloat16" else "only emulated on this GPU: take fp16"
    return {
        "float16": (cuda, "mixed_precision='fp16'" if cuda else slow),
        "bfloat16": (cuda and machine.dtype == "bfloat16", native if cuda else slow),
        "8-bit Adam": _eight_bit_adam(machine.device),
    }


def findings(machine: Machine) -> list[str]:
    """What is wrong with this machine or its installation, a sentence each with the fix."""
    found = [
        f"{package} is not installed: pip install {package}"
        for package, version in versions().items()
        if version is None and package != "bitsandbytes"
    ]
    if machine.device == "cpu" and shutil.which("nvidia-smi") and "ACCELERATE_USE_CPU" not in os.environ:
        found.append(
            "There is an NVIDIA driver, but torch uses no GPU: run nvidia-smi; if it lists one, install the "
            "build of torch with CUDA that pytorch.org/get-started names for this driver."
        )
    if machine.memory_free < 3 * _GB:
        found.append(f"{machine.memory_free / _GB:.1f} GB of memory are free, mini needs 3: close programs.")
    if machine.disk_free < _GB:
        found.append(f"{machine.disk_free / _GB:.1f} GB of disk are free, the course needs 1: make room.")
    return found


def facts() -> dict[str, Any]:
    """What `check` says, as figures."""
    machine = this_machine()
    return {
        "machine": asdict(machine),
        "versions": versions(),
        "to_do": findings(machine),
        "works": capabilities(machine),
        "can_run": can_run(machine),
        "threads": threads(),
    }


def check() -> str:
    """Everything that `check_env.py` says: first the five lines that the homework asks for.

    Returns:
        The text.

    Raises:
        ImportError: torch or accelerate is missing.

    Taught in: notebooks/00
    """
    import torch
    from accelerate import Accelerator

    def answers(found: dict[str, tuple[bool, str]], needs: str = "") -> list[str]:
        return [f"{what:<42}{'yes' if so else 'no':<5}({needs}{why})" for what, (so, why) in found.items()]

    Accelerator()
    found = facts()
    lines = [
        f"PyTorch version: {torch.__version__}",
        f"CUDA available: {torch.cuda.is_available()}",
        f"CUDA version: {torch.version.cuda}",
        f"cuDNN version: {torch.backends.cudnn.version()}",
        "Accelerator initialized successfully!",
        f"\nPython {platform.python_version()} at {sys.executable}",
        ", ".join(f"{package} {version}" for package, version in found["versions"].items() if version),
        f"\n{describe(Machine(**found['machine']))}\n{found['threads']}\n",
        *answers(found["works"]),
        "",
        *answers(found["can_run"], "needs: "),
        *(["\nTo do:"] if found["to_do"] else []),
        *(f"- {finding}" for finding in found["to_do"]),
    ]
    return "\n".join(lines)


def describe(machine: Machine | None = None) -> str:
    """Three lines: what a machine is, what was chosen on it, and why; None looks at this one."""
    machine = machine or this_machine()
    gpu = f" with {machine.gpu_memory / _GB:.0f} GB" if machine.gpu_memory else ""
    return (
        f"using {machine.device} because {machine.device_reason}\n"
        f"using {machine.dtype} because {machine.dtype_reason}\n"
        f"{machine.processor}{gpu}, cores: {machine.cores}, "
        f"memory: {machine.memory_free / _GB:.0f} of {machine.memory / _GB:.0f} GB free, "
        f"disk: {machine.disk_free / _GB:.0f} GB free"
    )


def threads() -> str:
    """How many threads compute, and how they wait for each other: see `sdlab.__init__`."""
    import torch

    policy, spins = (os.environ.get(name, "not set") for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    passive = policy.upper() == "PASSIVE"
    effect = "other programs slow a step little" if passive else "beside another program a step is slow"
    return f"threads: {torch.get_num_threads()}; OMP_WAIT_POLICY {policy}, GOMP_SPINCOUNT {spins}: {effect}"


def _eight_bit_adam(device: str) -> tuple[bool, str]:
    """Takes one step with it: an installation that doesn't fit the GPU only fails there."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of parts that aren't used here
    try:
        import torch
        from bitsandbytes.optim import Adam8bit

        weights = torch.nn.Parameter(torch.zeros(4096, device=device))
        weights.grad = torch.ones_like(weights)
        Adam8bit([weights]).step()
    except (ImportError, OSError, RuntimeError, NotImplementedError, AttributeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return False, f"torch's AdamW takes its place: {said[:80]}"
    return True, f"one step of bitsandbytes on {device}"


def _processor(device: str) -> tuple[str, int]:
    """The name of what computes, and its own memory in bytes."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name(), int(torch.cuda.get_device_properties().total_memory)
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    memory = int(torch.mps.recommended_max_memory()) if device == "mps" else 0
    return name[1] if name else platform.processor() or platform.machine(), memory
