"""What an experiment's record says of its run: machine, versions, time, memory, sizes."""

from __future__ import annotations

from typing import Any

from sdlab import machine
from sdlab.training import processes
from sdlab.training.memory import peak_memory_gb
from sdlab.training.setup import Training


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
    total = trained + sum(
        weight.numel()
        for part in (pipeline.unet, pipeline.text_encoder)
        for name, weight in part.named_parameters()
        if ".lora_" not in name and not weight.requires_grad
    )
    log = experiment.log()
    seconds = log[-1]["seconds"]
    files = [experiment.lora_file, *experiment.model_folder.rglob("*")]
    losses = [row["loss"] for row in log if "loss" in row][-10:]
    validation = [row["validation_loss"] for row in log if "validation_loss" in row]
    return {
        "steps": training.done,
        "seconds": seconds,
        "steps_per_second": round(training.done / max(seconds, 1e-9), 3),
        "peak_memory_gb": round(peak_memory_gb(), 3),
        "trainable_parameters": trained,
        "trainable_share": trained / total,
        "size_mb": round(sum(file.stat().st_size for file in files if file.is_file()) / 1e6, 3),
        "final_loss": sum(losses) / len(losses),
        "first_validation_loss": validation[0] if validation else None,
        "final_validation_loss": validation[-1] if validation else None,
    }
