"""Checkpoints: written beside their place, their manifest last, then renamed; torn ones are recognised."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sdlab.files import file_sha256, write_folder, write_json

WEIGHTS, OPTIMIZER, MANIFEST = "weights.safetensors", "optimizer.pt", "manifest.json"
LATEST = "latest"


def save(folder: Path, step: int, weights: Mapping[str, torch.Tensor], states: dict[str, Any]) -> None:
    """Writes one checkpoint: what is trained by name, and the states of optimizer and schedule."""
    size = 3 * sum(weight.nbytes for weight in weights.values())  # Adam keeps two more
    with write_folder(folder / f"step_{step:06d}", needed=size) as place:
        save_file(
            {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, place / WEIGHTS
        )
        torch.save(states, place / OPTIMIZER)
        hashes = {name: file_sha256(place / name) for name in (WEIGHTS, OPTIMIZER)}
        write_json(place / MANIFEST, {"step": step, "sha256": hashes})


def load(place: Path, weights: Mapping[str, torch.Tensor]) -> tuple[int, dict[str, Any]]:
    """Overwrites the weights by a checkpoint's; gives the steps done and the other states."""
    with torch.no_grad():
        for name, value in load_file(place / WEIGHTS).items():
            weights[name].copy_(value)
    states = torch.load(place / OPTIMIZER, map_location="cpu", weights_only=True)
    return int(json.loads((place / MANIFEST).read_text())["step"]), states


def find(folder: Path, name: str = LATEST) -> Path | None:
    """Finds the checkpoint to go on from: `latest`, `step_000100`, diffusers' `checkpoint-100`, or `100`.

    Raises:
        ValueError: There is no such checkpoint, or it is torn.
    """
    if name == LATEST:
        return latest(folder)
    known = {int(place.name.removeprefix("step_")): place for place in steps(folder)}
    digits = re.search(r"(\d+)/?$", name)
    place = known.get(int(digits[1])) if digits else None
    if place is None:
        choices = ", ".join(place.name for place in known.values()) or "none yet"
        raise ValueError(
            f"resume_from_checkpoint must be 'latest' or one of the checkpoints ({choices}), got {name!r}."
        )
    if not _whole(place) or not (place / OPTIMIZER).is_file():
        raise ValueError(f"{place} is torn or changed, so training can't go on from it. Take 'latest'.")
    return place


def latest(folder: Path) -> Path | None:
    """Finds the newest whole checkpoint; warns of torn ones."""
    for place in reversed(steps(folder)):
        if _whole(place):
            return place
        warnings.warn(f"{place} is torn or changed; using the checkpoint before it.", stacklevel=2)
    return None


def steps(folder: Path) -> list[Path]:
    """Lists the checkpoints' folders, oldest first."""
    return sorted(folder.glob("step_*"))


def tidy(folder: Path, keep: int | None) -> None:
    """Deletes all but the newest checkpoints, and what a killed writer left; None keeps all checkpoints."""
    surplus = steps(folder)[:-keep] if keep else []
    for place in [*surplus, *folder.glob(".*.partial")]:
        shutil.rmtree(place, ignore_errors=True)


def drop_optimizer_states(folder: Path) -> None:
    """Frees two thirds of the disk once training is finished: more steps go on from the newest alone."""
    for place in steps(folder)[:-1]:
        (place / OPTIMIZER).unlink(missing_ok=True)


def _whole(place: Path) -> bool:
    try:
        hashes = json.loads((place / MANIFEST).read_text())["sha256"]
        return all(file_sha256(place / name) == value for name, value in hashes.items())
    except (OSError, ValueError, KeyError):
        return False
