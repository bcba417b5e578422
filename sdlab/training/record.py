"""What is written down of a training: its log, curves for trackers, what it ran on and what it gave."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdlab import machine
from sdlab.training import processes
from sdlab.training.memory import peak_memory_gb
from sdlab.training.setup import Training


class Diverged(RuntimeError):
    """The loss is no longer a number; the message says what to change."""


class Log:
    """Sums one training's measurements on the device, and writes their means to its log and trackers."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._names = ["loss", *["instance_loss", "prior_loss"][: len(training.model.sources)], "grad_norm"]
        self._measured: list[torch.Tensor] = []
        self._trackers = _trackers(training)
        rows = training.experiment.log()
        self._seconds, self._since = rows[-1]["seconds"] if rows else 0.0, time.perf_counter()

    def add(self, measured: torch.Tensor) -> None:
        """Takes in what `train_step` measured."""
        self._measured.append(measured)

    def means(self) -> dict[str, float]:
        """Gives the means since they were asked for last, none before the first step; waits for the device.

        Raises:
            Diverged: A loss or a gradient is no number.
        """
        if not self._measured:
            return {}
        means = torch.stack(self._measured).mean(dim=0).tolist()
        self._measured.clear()
        measured = dict(zip(self._names, means, strict=True))
        # with fp16 the scaler skips the steps whose gradient overflowed
        fine = math.isfinite(measured["grad_norm"]) or self._training.scaler.is_enabled()
        if not math.isfinite(measured["loss"]) or not fine:
            chosen, done = self._training.hyperparameters, self._training.done
            advice = (
                f"Lower learning_rate (it is {chosen.learning_rate:g}; try {chosen.learning_rate / 10:g})"
            )
            if chosen.mixed_precision == "fp16":
                advice += ", or take mixed_precision 'bf16' or 'no'"
            lost = f"The loss is {measured['loss']:g} by step {done} or its gradient is no number"
            raise Diverged(f"{lost}, so the weights are lost. {advice}, under another name.")
        return measured

    def write(self, measured: dict[str, float], among: int) -> dict[str, float]:
        """Writes a row: what was measured, the learning rate, and this training's share of the time."""
        training, now = self._training, time.perf_counter()
        self._seconds, self._since = self._seconds + (now - self._since) / among, now
        row = {"step": training.done, **measured, "learning_rate": training.learning_rate}
        row |= {"seconds": round(self._seconds, 3)}
        training.experiment.add_to_log(row)
        self._report(row)
        return row

    def _report(self, row: dict[str, float]) -> None:
        """Gives the row, and the validation images of its step, to the trackers."""
        step = int(row["step"])
        files = sorted(self._training.experiment.validation_folder.glob(f"step_{step:06d}_img*.png"))
        for tracker in self._trackers:
            tracker.log({name: value for name, value in row.items() if name != "step"}, step=step)
            if files:
                pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"validation": pictures}, step=step, **layout)

    def close(self) -> None:
        """Has the trackers write what is left."""
        for tracker in self._trackers:
            tracker.finish()


def _trackers(training: Training) -> list[Any]:
    """Starts accelerate's trackers; nothing leaves the machine unless WANDB_MODE=online asks for it."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    chosen, experiment = training.hyperparameters, training.experiment
    if not chosen.report_to:
        return []
    folder = experiment.path / "trackers"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_MODE", "offline")
    options: dict[str, dict[str, Any]] = {
        "tensorboard": {"run_name": "tensorboard", "logging_dir": str(folder)},
        "wandb": {
            "run_name": "sdlab",
            "name": experiment.name,
            "dir": str(folder),
            "config": chosen.as_dict(),
            "reinit": "create_new",  # LoRAs in one pass each have a run
        },
    }
    started = [LOGGER_TYPE_TO_CLASS[name](**options[name]) for name in chosen.report_to.split(",")]
    for tracker in started:
        tracker.start()
    return started


def describe_machine(training: Training) -> dict[str, Any]:
    """Says what the training runs on: versions, device, processor, precision, optimizer."""
    here = machine.this_machine()
    return {
        **machine.versions(),
        "device": training.model.device.type,
        "processor": here.processor,
        "cores": here.cores,
        "mixed_precision": training.model.accelerator.mixed_precision,
        "optimizer": type(training.optimizer).__name__,
        "processes": processes.COUNT,
    }


def describe_result(training: Training) -> dict[str, Any]:
    """Says what the finished training took and gave, after its export."""
    experiment, pipeline = training.experiment, training.model.pipeline
    trained = sum(weight.numel() for weight in training.weights.values())
    frozen = sum(
        weight.numel()
        for part in (pipeline.unet, pipeline.text_encoder)
        for name, weight in part.named_parameters()
        if ".lora_" not in name and not weight.requires_grad
    )
    log = experiment.log()
    seconds = log[-1]["seconds"] if log else 0.0
    files = [experiment.lora_file, *experiment.model_folder.rglob("*")]
    losses = [row["loss"] for row in log if "loss" in row][-10:]
    held_out = [row["validation_loss"] for row in log if "validation_loss" in row]
    return {
        "steps": training.done,
        "seconds": seconds,
        "steps_per_second": round(training.done / max(seconds, 1e-9), 3),
        "peak_memory_gb": round(peak_memory_gb(), 3),
        "trainable_parameters": trained,
        "trainable_share": trained / (trained + frozen),
        "size_mb": round(sum(file.stat().st_size for file in files if file.is_file()) / 1e6, 3),
        "final_loss": sum(losses) / len(losses) if losses else None,
        "final_validation_loss": held_out[-1] if held_out else None,
    }
