"""Will it fit, and how long will it take? Asked before a run; and what to change when memory runs out."""

from __future__ import annotations

import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from sdlab import machine
from sdlab.config import Hyperparameters, LoRA
from sdlab.files import DiskFull
from sdlab.formats.conversion import pipeline_bytes
from sdlab.training.reckoning import Memory, configurations, reckon
from sdlab.training.setup import Model, Training

# How the allocator and oneDNN, which computes on the CPU, say that there is none left.
_CPU_WORDS = ("can't allocate memory", "could not create a primitive")
_PROCESS = Path("/proc/self")
_GB = 1e9
_SHARE = 0.7  # of the free memory that several trainings at once may take by this reckoning


class NotEnoughMemory(RuntimeError):
    """The training doesn't fit into memory; the message says what to change first."""


@dataclass(frozen=True)
class Needs:
    """What a training needs beyond the loaded model, and what there is, in 10⁹ bytes."""

    memory_gb: float  # gradients, optimizer and activations, at least
    memory_free_gb: float  # of the GPU, else of the machine
    disk_gb: float  # checkpoints and result
    disk_free_gb: float  # where the experiment is


@dataclass(frozen=True)
class Trial:
    """What two steps of a training took."""

    needs: Needs  # reckoned before them
    seconds_per_step: float  # of the second step; the first one warms up
    peak_memory_gb: float  # of the GPU's memory, else of this process's
    steps: int  # that are to come

    def text(self) -> str:
        """The figures as one line."""
        minutes = self.seconds_per_step * self.steps / 60
        takes = f"{minutes:.0f} min" if minutes >= 1.5 else f"{60 * minutes:.0f} s"
        return (
            f"{self.seconds_per_step:.3g} s a step, {takes} for {self.steps} step{'s' * (self.steps != 1)}; "
            f"peak memory {self.peak_memory_gb:.2g} GB; "
            f"disk {self.needs.disk_gb:.2g} GB of {self.needs.disk_free_gb:.3g} GB free"
        )


def at_once(model: Model, planned: Sequence[Hyperparameters]) -> int:
    """Reckons how many of some LoRAs fit into memory in one pass, 1 at least."""
    if len(planned) == 1:
        return 1
    largest = _of_largest(model, planned)
    each = largest.step - largest.weights
    return max(1, min(len(planned), int(_SHARE * machine.memory_free() / each)))


def check(trainings: Sequence[Training]) -> Needs:
    """Reckons what trainings in one pass need, and refuses what can't fit, before its first step.

    Raises:
        NotEnoughMemory: More memory is needed than is free.
        DiskFull: More disk is needed than is free.
    """
    first, folder, count = trainings[0], trainings[0].experiment.path, len(trainings)
    largest = _of_largest(first.model, [one.hyperparameters for one in trainings])
    memory = count * (largest.step - largest.weights) / _GB
    memory_free = machine.memory_free() / _GB
    there = [file for one in trainings for place in one.experiment.checkpoints for file in place.iterdir()]
    taken = sum(file.stat().st_size for file in there)  # new checkpoints take their place
    disk = max(0, count * _disk_bytes(first, largest) - taken) / _GB
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    disk_free = shutil.disk_usage(existing).free / _GB
    if memory > memory_free:
        raise NotEnoughMemory(
            f"The training needs at least {memory:.1f} GB of memory beyond the model, "
            f"{memory_free:.1f} GB are free. {advice(first.hyperparameters)}"
        )
    if disk > disk_free:
        raise DiskFull(
            f"The training needs {disk:.1f} GB of disk for checkpoints and result, "
            f"{disk_free:.1f} GB are free at {folder}. Make room, or set checkpoints_total_limit=1."
        )
    return Needs(memory, memory_free, disk, disk_free)


def try_steps(training: Training, step: Callable[[Sequence[Training]], object]) -> Trial:
    """Takes two steps (`loop.train_step`) and measures them; the training is of no use afterwards."""
    needs = check([training])
    reset_peak_memory()
    step([training])
    start = now(training.model.device)
    step([training])
    seconds = now(training.model.device) - start
    return Trial(needs, seconds, peak_memory_gb(), training.hyperparameters.max_train_steps)


def now(device: torch.device) -> float:
    """Gives `time.perf_counter`, after all that was started is computed."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak_memory() -> None:
    """Starts measuring peak memory anew, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # Linux: resets VmHWM


def peak_memory_gb() -> float:
    """Gives the peak since `reset_peak_memory`, of the GPU's memory, else of this process's, in 10⁹ bytes.

    Where no peak is kept, it is the present use.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / _GB
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / _GB for line in lines if line.startswith("VmHWM"))
    except OSError:
        return psutil.Process().memory_info().rss / _GB


@contextmanager
def with_advice(chosen: Hyperparameters) -> Iterator[None]:
    """Turns "out of memory" into advice, and frees what the training held."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0]
        traceback.clear_frames(error.__traceback__)  # they hold the tensors
        machine.free_memory()
        raise NotEnoughMemory(f"Memory ran out ({said}). {advice(chosen)}") from None


def advice(chosen: Hyperparameters) -> str:
    """Says what to change first to need less memory."""
    if chosen.train_batch_size > 1:
        batches = chosen.train_batch_size * chosen.gradient_accumulation_steps
        return f"Set train_batch_size=1 and gradient_accumulation_steps={batches}: the same gradient."
    if not chosen.gradient_checkpointing:
        return "Set gradient_checkpointing=True: activations are computed twice instead of kept."
    if torch.cuda.is_available() and chosen.mixed_precision == "no":
        return "Set mixed_precision='bf16' (or 'fp16' on older GPUs)."
    if not isinstance(chosen, LoRA):
        if chosen.optimizer_name == "adamw":
            return "Set use_8bit_adam=True: the optimizer's state takes a quarter."
        if chosen.train_text_encoder:
            return "Leave out train_text_encoder, or train a LoRA, which needs a fraction."
        return "Train a LoRA instead, which needs a fraction of the memory."
    if chosen.resolution > 256:
        return f"Lower resolution (it is {chosen.resolution}; try {chosen.resolution // 16 * 8})."
    return "Close other programs, or take a larger machine."


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that there is no memory left, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)
    )


def _of_largest(model: Model, planned: Sequence[Hyperparameters]) -> Memory:
    """What the training of the highest rank takes."""
    largest = max(planned, key=lambda chosen: getattr(chosen, "rank", 0))
    return reckon(configurations(model.pipeline), largest)


def _disk_bytes(training: Training, memory: Memory) -> int:
    chosen = training.hyperparameters
    saves = math.ceil(chosen.max_train_steps / chosen.checkpointing_steps)
    kept = min(chosen.checkpoints_total_limit or math.inf, saves) + 1  # one more while it is written
    trained = memory.gradients  # as large as the weights that they are of
    result = trained if isinstance(chosen, LoRA) else pipeline_bytes(training.model.pipeline)
    return int(kept * (trained + memory.states)) + result
