"""Curves and validation images for TensorBoard or Weights & Biases, through accelerate's trackers."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from sdlab.training.setup import Training


def check(report_to: str | None) -> None:
    """Raises ValueError where a tracker's package is missing."""
    for name in report_to.split(",") if report_to else []:
        if find_spec(name) is None:
            raise ValueError(
                f"report_to {name!r} needs its package. Run `pip install {name}`, or leave it out."
            )


class Trackers:
    """What one training reports to; nothing leaves the machine unless WANDB_MODE=online asks for it."""

    def __init__(self, training: Training) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        chosen, experiment = training.hyperparameters, training.experiment
        os.environ.setdefault("WANDB_MODE", "offline")
        folder = experiment.path / "trackers"
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
        self._folder = experiment.validation_folder
        self._trackers = []
        for name in chosen.report_to.split(",") if chosen.report_to else []:
            folder.mkdir(parents=True, exist_ok=True)
            tracker = LOGGER_TYPE_TO_CLASS[name](**options[name])
            tracker.start()
            self._trackers.append(tracker)

    def log(self, row: dict[str, Any]) -> None:
        """Reports a row of the experiment's log, and the images of its step."""
        if not self._trackers:
            return
        step = row["step"]
        files = sorted(self._folder.glob(f"step_{step:06d}_img*.png"))
        images = [Image.open(file).convert("RGB") for file in files]
        for tracker in self._trackers:
            tracker.log({name: value for name, value in row.items() if name != "step"}, step=step)
            if images and tracker.name == "tensorboard":
                pixels = np.stack([np.asarray(image) for image in images])
                tracker.log_images({"validation": pixels}, step=step, dataformats="NHWC")
            elif images:
                tracker.log_images({"validation": images}, step=step)

    def finish(self) -> None:
        """Writes what is left."""
        for tracker in self._trackers:
            tracker.finish()
