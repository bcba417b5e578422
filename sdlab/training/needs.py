"""Will it fit, and how long will it take? Asked before a run; and what to change when memory runs out."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from sdlab.config import Hyperparameters, LoRA
from sdlab.files import DiskFull
from sdlab.training import lora
from sdlab.training.measure import peak_memory_gb, reset_peak_memory

if TYPE_CHECKING:
    from sdlab.training.setup import Training

_STATE_BYTES = {"adamw": 8, "adamw8bit": 2, "prodigy": 16, "adafactor": 1}  # per trained weight
# How the allocator and oneDNN, which computes on the CPU, say that there is none left.
_CPU_WORDS = ("can't allocate memory", "could not create a primitive")
_GB = 1e9


class NotEnoughMemory(RuntimeError):
    """The training doesn't fit into memory; the message says what to change first."""


@dataclass(frozen=True)
class Needs:
    """What a training needs beyond the loaded model, and what there is.

    Args:
        memory_gb: Gradients, optimizer and activations, at least; in 10⁹ bytes.
        memory_free_gb: Of the GPU, else of the machine.
        disk_gb: Checkpoints and result.
        disk_free_gb: Where the experiment is.
    """

    memory_gb: float
    memory_free_gb: float
    disk_gb: float
    disk_free_gb: float


@dataclass(frozen=True)
class Trial:
    """What two steps of a training took.

    Args:
        needs: Reckoned before them.
        seconds_per_step: Of the second step; the first one warms up.
        peak_memory_gb: Of the GPU's memory, else of this process's.
        steps: That are to come.
    """

    needs: Needs
    seconds_per_step: float
    peak_memory_gb: float
    steps: int

    def text(self) -> str:
        """The figures as one line."""
        minutes = self.seconds_per_step * self.steps / 60
        takes = f"{minutes:.0f} min" if minutes >= 1.5 else f"{60 * minutes:.0f} s"
        return (
            f"{self.seconds_per_step:.3g} s a step, {takes} for {self.steps} steps; "
            f"peak memory {self.peak_memory_gb:.2g} GB; "
            f"disk {self.needs.disk_gb:.2g} GB of {self.needs.disk_free_gb:.3g} GB free"
        )


def needs(training: Training, folder: Path) -> Needs:
    """Reckons what a training needs, without computing anything.

    Args:
        training: Loaded, before its first step.
        folder: The experiment's.

    Returns:
        Lower bounds; the peak is higher by what single operations need.
    """
    chosen = training.hyperparameters
    trained = sum(weight.numel() for weight in training.weights.values())
    state = 4 + _STATE_BYTES[chosen.optimizer_name] + (4 if chosen.use_ema else 0)
    memory = trained * state + activation_bytes(training)
    if chosen.mixed_precision != "no" and not isinstance(chosen, LoRA):
        memory += 2 * trained  # autocast's copies of the weights in half precision
    kept = min(
        chosen.checkpoints_total_limit or math.inf,
        math.ceil(chosen.max_train_steps / chosen.checkpointing_steps),
    )
    result = trained if isinstance(chosen, LoRA) else _weights(training)
    disk = (kept + 1) * trained * state + 4 * result  # one more checkpoint is there while it is written
    return Needs(
        memory / _GB,
        _free_memory(training) / _GB,
        disk / _GB,
        shutil.disk_usage(_existing(folder)).free / _GB,
    )


def check(training: Training, folder: Path) -> Needs:
    """Refuses a training that can't fit, before it starts.

    Args:
        training: Loaded, before its first step.
        folder: The experiment's.

    Returns:
        What it needs.

    Raises:
        NotEnoughMemory: More memory is needed than is free.
        DiskFull: More disk is needed than is free.
    """
    found = needs(training, folder)
    if found.memory_gb > found.memory_free_gb:
        raise NotEnoughMemory(
            f"The training needs at least {found.memory_gb:.1f} GB of memory beyond the model, "
            f"{found.memory_free_gb:.1f} GB are free. {advice(training.hyperparameters)}"
        )
    if found.disk_gb > found.disk_free_gb:
        raise DiskFull(
            f"The training needs {found.disk_gb:.1f} GB of disk for checkpoints and result, "
            f"{found.disk_free_gb:.1f} GB are free at {folder}. Make room, or set checkpoints_total_limit=1."
        )
    return found


def try_steps(training: Training, folder: Path, step: Callable[[Training, int], object]) -> Trial:
    """Takes two steps and measures them; the training is of no use for anything else afterwards.

    Args:
        training: Before its first step.
        folder: The experiment's.
        step: `loop.train_step`.

    Returns:
        Time and memory.

    Raises:
        NotEnoughMemory: More memory is needed than is free.
        DiskFull: More disk is needed than is free.
    """
    found = check(training, folder)
    reset_peak_memory()
    step(training, 0)
    start = now(training)
    step(training, 1)
    return Trial(found, now(training) - start, peak_memory_gb(), training.hyperparameters.max_train_steps)


def now(training: Training) -> float:
    """The time after all that was started is computed.

    Args:
        training: For its device.

    Returns:
        Seconds, of `time.perf_counter`.
    """
    if training.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def advice(hyperparameters: Hyperparameters) -> str:
    """Says what to change first to need less memory.

    Args:
        hyperparameters: Of the training that doesn't fit.

    Returns:
        A sentence.
    """
    chosen = hyperparameters
    on_gpu = torch.cuda.is_available()
    if chosen.train_batch_size > 1:
        batches = chosen.train_batch_size * chosen.gradient_accumulation_steps
        return f"Set train_batch_size=1 and gradient_accumulation_steps={batches}: the same gradient."
    if not chosen.gradient_checkpointing:
        return "Set gradient_checkpointing=True: activations are computed twice instead of kept."
    if on_gpu and chosen.mixed_precision == "no":
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
    """Tells whether an error says that there is no memory left, on a GPU or on the CPU.

    Args:
        error: Any.

    Returns:
        Whether it does.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)
    )


def activation_bytes(training: Training) -> int:
    """Counts what the UNet keeps for its backward pass, by a pass over tensors without contents.

    Args:
        training: For its UNet's shape, batch and resolution.

    Returns:
        Bytes; the text encoder's are left out, they are few.
    """
    chosen, unet = training.hyperparameters, training.pipeline.unet
    size = chosen.train_batch_size * len(training.sources)
    side = chosen.resolution // 2 ** (len(training.pipeline.vae.config.block_out_channels) - 1)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.device("meta"):
        shape = type(unet).from_config(unet.config)
        if isinstance(chosen, LoRA):
            shape.requires_grad_(False)
            lora.add_adapter(shape, chosen, "unet")
        if chosen.gradient_checkpointing:
            shape.enable_gradient_checkpointing()
        latents = torch.empty(size, unet.config.in_channels, side, side)
        embeddings = torch.empty(size, 77, unet.config.cross_attention_dim)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            shape.train()(latents, torch.zeros(size), embeddings)
    weights = {weight.untyped_storage()._cdata for weight in shape.parameters()}
    total = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
    return total // (1 if chosen.mixed_precision == "no" else 2)


def _weights(training: Training) -> int:
    parts = (training.pipeline.unet, training.pipeline.text_encoder, training.pipeline.vae)
    return sum(weight.numel() for part in parts for weight in part.parameters())


def _free_memory(training: Training) -> int:
    if training.accelerator.device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
