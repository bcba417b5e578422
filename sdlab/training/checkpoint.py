"""Checkpoints: written beside their place, their manifest last, then renamed; torn ones are recognised."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sdlab.experiment import checkpoints_in, step_of
from sdlab.files import file_sha256, write_folder, write_json
from sdlab.training import processes
from sdlab.training.setup import Training

WEIGHTS, OPTIMIZER, MANIFEST = "weights.safetensors", "optimizer.pt", "manifest.json"
LATEST = "latest"


def save(training: Training) -> None:
    """Saves what `resume` needs, and deletes checkpoints beyond the limit.

    Raises:
        DiskFull: The disk is full; the checkpoints that were there are whole.
    """
    folder = training.experiment.checkpoints_folder
    weights = {name: weight.detach().cpu().contiguous() for name, weight in training.weights.items()}
    size = 3 * sum(weight.nbytes for weight in weights.values())  # Adam keeps two more
    with write_folder(folder / f"step_{training.done:06d}", needed=size) as place:
        save_file(weights, place / WEIGHTS)
        states = {name: part.state_dict() for name, part in _parts(training).items()}
        torch.save(states, place / OPTIMIZER)
        hashes = {name: file_sha256(place / name) for name in (WEIGHTS, OPTIMIZER)}
        write_json(place / MANIFEST, {"step": training.done, "sha256": hashes})
    tidy(folder, training.hyperparameters.checkpoints_total_limit)


def resume(training: Training, name: str = LATEST) -> int:
    """Loads a checkpoint into a training at step 0; gives the steps done.

    Raises:
        ValueError: There is no such checkpoint.
    """
    folder = training.experiment.checkpoints_folder
    if processes.FIRST:
        tidy(folder, keep=None)
    if place := find(folder, name):
        training.done = int(json.loads((place / MANIFEST).read_text())["step"])
        with torch.no_grad():
            for weight_name, value in load_file(place / WEIGHTS).items():
                training.weights[weight_name].copy_(value)
        states = torch.load(place / OPTIMIZER, map_location="cpu", weights_only=True)
        for part_name, part in _parts(training).items():
            part.load_state_dict(states[part_name])
        if training.ema is not None:
            training.ema.to(training.model.device)
        if training.done > (training.hyperparameters.text_encoder_steps or training.done):
            training.freeze_text_encoder()
    if processes.FIRST:
        training.experiment.cut_log(training.done if place else -1)
    return training.done


def _parts(training: Training) -> dict[str, Any]:
    """Those that have a state beside the weights; the schedule's is the step alone."""
    parts = {"optimizer": training.optimizer, "scaler": training.scaler}
    return parts | ({"ema": training.ema} if training.ema is not None else {})


def find(folder: Path, name: str = LATEST) -> Path | None:
    """Finds the checkpoint to go on from: `latest`, `step_000100`, diffusers' `checkpoint-100`, or `100`.

    The latest is the newest whole one; it warns of torn ones.

    Raises:
        ValueError: There is no such checkpoint, or it is torn.
    """
    if name == LATEST:
        for newest in reversed(checkpoints_in(folder)):
            if _whole(newest):
                return newest
            warnings.warn(f"{newest} is torn or changed; using the checkpoint before it.", stacklevel=2)
        return None
    known = {step_of(place): place for place in checkpoints_in(folder)}
    digits = re.search(r"(\d+)/?$", name)
    place = known.get(int(digits[1])) if digits else None
    if place is None:
        choices = ", ".join(place.name for place in known.values()) or "none yet"
        raise ValueError(
            f"resume_from_checkpoint must be 'latest' or one of the checkpoints ({choices}), got {name!r}."
        )
    if not _whole(place):
        what = "is torn or changed" if (place / OPTIMIZER).is_file() else "keeps the weights alone"
        raise ValueError(f"{place} {what}, so training can't go on from it. Take 'latest'.")
    return place


def tidy(folder: Path, keep: int | None) -> None:
    """Deletes all but the newest checkpoints, and what a killed writer left; None keeps all checkpoints."""
    surplus = checkpoints_in(folder)[:-keep] if keep else []
    for place in [*surplus, *folder.glob(".*.partial")]:
        shutil.rmtree(place, ignore_errors=True)


def _whole(place: Path) -> bool:
    try:
        hashes = json.loads((place / MANIFEST).read_text())["sha256"]
        return all(file_sha256(place / name) == value for name, value in hashes.items())
    except (OSError, ValueError, KeyError):
        return False
