"""What an experiment's record says of its run: machine, versions, time, memory, sizes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from sdlab import machine as environment
from sdlab.experiment import Experiment

if TYPE_CHECKING:
    from sdlab.training.setup import Training

_PROCESS = Path("/proc/self")


def reset_peak_memory() -> None:
    """Starts measuring peak memory anew, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # Linux: resets VmHWM


def peak_memory_gb() -> float:
    """Gives the peak memory since `reset_peak_memory`.

    Returns:
        10⁹ bytes: of the GPU's memory, else of this process's; the present use where no peak is kept.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))
    except OSError:
        return psutil.Process().memory_info().rss / 1e9


def describe_machine(training: Training) -> dict[str, Any]:
    """Says what the training runs on.

    Args:
        training: For its device and precision.

    Returns:
        Versions, device, processor, precision.
    """
    machine = environment.this_machine()
    return {
        **environment.versions(),
        "device": training.accelerator.device.type,
        "processor": machine.processor,
        "cores": machine.cores,
        "mixed_precision": training.accelerator.mixed_precision,
        "optimizer": type(training.optimizer.optimizer).__name__,
    }


def describe_result(training: Training, experiment: Experiment) -> dict[str, Any]:
    """Says what the finished training took and gave.

    Args:
        training: At its end.
        experiment: Exported.

    Returns:
        Steps, seconds, speed, memory, trained weights and their share, size of the result, last losses.
    """
    parts = [training.pipeline.unet, training.pipeline.text_encoder]
    trained = sum(weight.numel() for weight in training.weights.values())
    total = sum(weight.numel() for part in parts for weight in part.parameters())
    log = experiment.log()
    steps, seconds = training.hyperparameters.max_train_steps, log[-1]["seconds"]
    files = [experiment.lora_file, *experiment.model_folder.rglob("*")]
    losses = [row["loss"] for row in log if "loss" in row][-10:]
    validation = [row["validation_loss"] for row in log if "validation_loss" in row]
    return {
        "steps": steps,
        "seconds": seconds,
        "steps_per_second": round(steps / max(seconds, 1e-9), 3),
        "peak_memory_gb": round(peak_memory_gb(), 3),
        "trainable_parameters": trained,
        "trainable_share": trained / total,
        "size_mb": round(sum(file.stat().st_size for file in files if file.is_file()) / 1e6, 3),
        "final_loss": sum(losses) / len(losses),
        "first_validation_loss": validation[0] if validation else None,
        "final_validation_loss": validation[-1] if validation else None,
    }
