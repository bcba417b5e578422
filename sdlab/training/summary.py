"""What a training's course looks like: its figures, its curve, and its newest images beside the base's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdlab import thumbnails
from sdlab.config import Hyperparameters, number
from sdlab.experiment import Experiment
from sdlab.templates import render
from sdlab.training.curve import WIDTH, draw_curve, smoothed
from sdlab.training.memory import peak_memory_gb
from sdlab.training.setup import Training

_SIDE = 160  # pixels of a validation image; shown smaller, so that it is sharp on fine screens
_SHOWN = 4  # validation images of one step


class Summary:
    """Figures and pictures of a training that runs or has ended, after so many steps."""

    def __init__(self, experiment: Experiment, hyperparameters: Hyperparameters, done: int) -> None:
        self.name, self.total, self.done = experiment.name, hyperparameters.max_train_steps, done
        self.notes: list[str] = []
        self._rows = experiment.log()
        self._prompt = hyperparameters.validation_prompt or ""
        self._validation = experiment.validation_folder
        self._thumbnails: dict[Path, str] = {}

    @classmethod
    def of(cls, training: Training) -> Summary:
        """Summarises a training as it is now."""
        return cls(training.experiment, training.hyperparameters, training.done)

    def add(self, row: dict[str, Any]) -> None:
        """Takes in a row of the log."""
        self._rows.append(row)

    def figures(self) -> dict[str, str]:
        """Gives the newest figures by name, as they are read; without those that there are none of yet."""
        shown = {}
        if losses := self._column("loss"):
            shown["loss (smoothed)"] = f"{smoothed(list(losses.values()))[-1]:.4f}"
        if held_out := list(self._column("validation_loss").values()):
            shown["validation loss"] = f"{held_out[-1]:.4f}"
        if rates := self._column("learning_rate"):
            shown["learning rate"] = number(float(f"{list(rates.values())[-1]:.3g}"))
        return shown | {"peak memory": f"{peak_memory_gb():.2g} GB"}

    @property
    def seconds(self) -> float:
        """How long the training took up to the last row of the log, in seconds."""
        return float(self._rows[-1]["seconds"]) if self._rows else 0.0

    def head(self, state: str) -> str:
        """Draws the progress, in words `state`, and the figures, with the lowest validation loss, as HTML."""
        figures, held_out = self.figures(), self._column("validation_loss")
        if len(held_out) > 1:
            step = min(held_out, key=lambda step: held_out[step])
            figures["validation loss"] += f" (lowest {held_out[step]:.4f} at step {step})"
        return render("panel_head.html", summary=self, figures=figures, state=state)

    def body(self) -> str:
        """Draws the losses over the steps, and the newest validation images beside the base's, as HTML."""
        return render(
            "panel_body.html",
            curves=[
                {
                    "uri": thumbnails.data_uri(draw_curve(title, values, self.total, colour)),
                    "alt": _in_words(title, values),
                }
                for title, values, colour in self._curves()
            ],
            width=WIDTH,
            groups=self._images(),
            prompt=self._prompt,
        )

    def _curves(self) -> Iterator[tuple[str, dict[int, float], str]]:
        losses, held_out = self._column("loss"), self._column("validation_loss")
        smooth = dict(zip(losses, smoothed(list(losses.values())), strict=True))
        if len(losses) > 1:
            yield "training loss, smoothed", smooth, "#4a7fe0"
        if len(held_out) > 1:
            yield "loss of held-out photos", held_out, "#dd7a3a"

    def _column(self, name: str) -> dict[int, float]:
        return {row["step"]: row[name] for row in self._rows if name in row}

    def _images(self) -> list[dict[str, Any]]:
        """The base's and the newest, as far as there are any."""
        files: dict[int, list[Path]] = {}
        for file in sorted(self._validation.glob("step_*_img*.png")):
            step = int(file.name.split("_")[1])
            if step <= self.done:  # later ones are of a run that this one took back
                files.setdefault(step, []).append(file)
        return [
            {
                "title": f"after step {step}" if step else "before training",
                "uris": [uri for file in files[step][:_SHOWN] if (uri := self._thumbnail(file))],
            }
            for step in files
            if step in (0, max(files))
        ]

    def _thumbnail(self, file: Path) -> str:
        """The picture, kept: the base's are shown again and again. A lost one must not end a training."""
        if file not in self._thumbnails:
            try:
                picture = thumbnails.opened(file)
            except OSError:
                return ""
            small = thumbnails.fitted(picture, min(_SIDE, max(picture.size)))
            self._thumbnails[file] = thumbnails.data_uri(small, quality=70)
        return self._thumbnails[file]


def _in_words(title: str, values: Mapping[int, float]) -> str:
    shown = list(values.values())
    return f"{title}: from {shown[0]:.4f} to {shown[-1]:.4f} at step {max(values)}"
