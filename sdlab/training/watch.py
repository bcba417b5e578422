"""What is seen of trainings: a bar in a terminal, a panel in a notebook, and the summary that stays there."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from sdlab import notebook, thumbnails
from sdlab.config import Hyperparameters, number
from sdlab.experiment import Experiment
from sdlab.templates import render
from sdlab.training.memory import peak_memory_gb
from sdlab.training.setup import Training
from sdlab.verdict import smoothed

_SOONEST, _LATEST = 1.0, 5.0  # seconds between two refreshes of the panel
_SHARE = 0.01  # of the training's time that refreshes may take: the next one waits for so long
_SIDE = 160  # pixels of a validation image; shown smaller, so that it is sharp on fine screens
_SHOWN = 4  # validation images of one step
_WIDTH, _HEIGHT = 580, 300  # pixels of a curve; shown half as large
_INK = "#858b94"  # read on white and on black: the curves have no background
_CURVES = {
    "loss": ("training loss, smoothed", "#4a7fe0"),
    "validation_loss": ("loss of held-out photos", "#dd7a3a"),
}


class Watch:
    """Shows trainings of one pass while the block runs; in a notebook a summary of each stays.

    Args:
        stop: Set by the panel's button.
        progress: Show anything at all.
    """

    def __init__(self, trainings: Sequence[Training], stop: threading.Event, progress: bool) -> None:
        self._shown, self._next = progress, 0.0  # when to draw the panel again
        self._summaries = {one: Summary(one.experiment, one.hyperparameters, one.done) for one in trainings}
        first = trainings[0]
        self._name = first.experiment.name if len(trainings) == 1 else f"{len(trainings)} in one pass"
        self._panel = _Panel(len(trainings), stop) if progress and notebook.has_widgets() else None
        self._bar = tqdm(
            total=first.hyperparameters.max_train_steps,
            initial=min(one.done for one in trainings),
            desc=self._name,
            unit=" steps",
            disable=not progress,
            mininterval=0.5,
            file=io.StringIO() if self._panel else None,  # the panel takes the bar's figures
        )

    def __enter__(self) -> Watch:
        if self._panel:
            self._refresh(self._panel)
            self._panel.open(f"{self._name}: training")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if not self._shown or notebook.kernel() is None:
            return
        from IPython.display import display

        left = []
        for training, summary in self._summaries.items():
            state = f"step {training.done} of {summary.total}, after {summary.time}"
            if kind is not None:
                state += f", ended by {kind.__name__}"
            elif not training.finished:
                state += ", stopped; train it again to go on"
            summary.done = training.done
            figures = ", ".join(f"{name} {value}" for name, value in summary.figures().items())
            html, text = summary.head(state) + summary.body(), f"{summary.name}: {state}; {figures}"
            left.append(notebook.bundle(html, text))
        if self._panel:
            self._panel.close(left.pop(0))
        for one in left:
            display(one, raw=True)

    def step(self) -> None:
        """A step is done."""
        self._bar.update()
        if self._panel and time.perf_counter() >= self._next:
            self._refresh(self._panel)

    def row(self, training: Training, row: dict[str, Any]) -> None:
        """A row was written to the training's log."""
        self._summaries[training].add(row)
        if len(self._summaries) == 1:
            self._bar.set_postfix(self._summaries[training].figures(), refresh=False)

    def say(self, text: str) -> None:
        """A line that is worth keeping."""
        if self._panel:
            next(iter(self._summaries.values())).notes.append(text)
        elif self._shown:
            with suppress(OSError):  # a closed pipe
                self._bar.write(f"{self._name}: {text}")

    def _refresh(self, panel: _Panel) -> None:
        start = time.perf_counter()
        words = {"bar_format": "{rate_fmt}, {remaining} left"}
        pace = tqdm.format_meter(**self._bar.format_dict | words)
        if panel.stop.is_set():
            pace = "stopping: saving what is there"
        pages = []
        for training, summary in self._summaries.items():
            summary.done = training.done
            pages += [summary.head(f"step {summary.done} of {summary.total}, {pace}"), summary.body()]
        panel.draw(pages)
        now = time.perf_counter()
        self._next = now + min(max((now - start) / _SHARE, _SOONEST), _LATEST)


class _Panel:
    """The widgets: two pages for each training, so that pictures stay while figures change; a button."""

    def __init__(self, trainings: int, stop: threading.Event) -> None:
        import ipywidgets

        self.stop = stop
        self._pages = [ipywidgets.HTML() for _ in range(2 * trainings)]
        self._button = ipywidgets.Button(
            description="Stop and save",
            tooltip="Finishes the step and saves; train again to go on. Interrupting the kernel does too.",
            icon="stop",
        )
        self._button.on_click(self._ask)
        notebook.reachable(self._button)
        self._box = ipywidgets.VBox([*self._pages, self._button])
        self._open = ExitStack()
        self._clicks: Callable[[], object] = lambda: None

    def open(self, text: str) -> None:
        from IPython.display import display

        self._clicks = self._open.enter_context(notebook.clicks())
        html = "".join(page.value for page in self._pages)
        self._place = display(notebook.bundle(html, text, self._box), raw=True, display_id=True)

    def draw(self, pages: list[str]) -> None:
        self._clicks()
        for widget, page in zip(self._pages, pages, strict=True):
            widget.value = page  # one that stays the same isn't sent

    def close(self, left: dict[str, Any]) -> None:
        self._open.close()
        self._place.update(left, raw=True)
        for widget in (self._box, *self._pages, self._button):
            widget.close()

    def _ask(self, button: Any) -> None:
        self.stop.set()
        button.description, button.disabled = "Stopping …", True


class Summary:
    """Figures, curves and newest images of a training that runs or has ended, after so many steps."""

    def __init__(self, experiment: Experiment, hyperparameters: Hyperparameters, done: int) -> None:
        self.name, self.total, self.done = experiment.name, hyperparameters.max_train_steps, done
        self.notes: list[str] = []
        self._rows = experiment.log()
        self._prompt = hyperparameters.validation_prompt or ""
        self._folder = experiment.validation_folder
        self._body = ""  # kept until there is a new row
        self._thumbnail = cache(_thumbnail)  # the base's images are shown again and again

    def add(self, row: dict[str, Any]) -> None:
        """Takes in a row of the log."""
        self._rows.append(row)
        self._body = ""

    def figures(self) -> dict[str, str]:
        """Gives the newest figures by name, as they are read; without those that there are none of yet."""
        shown = {}
        if losses := self._column("loss"):
            shown["loss (smoothed)"] = f"{smoothed(losses.values())[-1]:.4f}"
        if held_out := self._column("validation_loss"):
            shown["validation loss"] = f"{held_out[max(held_out)]:.4f}"
        if rates := self._column("learning_rate"):
            shown["learning rate"] = number(float(f"{rates[max(rates)]:.3g}"))
        return shown | {"peak memory": f"{peak_memory_gb():.2g} GB"}

    @property
    def time(self) -> str:
        """How long the training took up to the last row of the log."""
        return tqdm.format_interval(self._rows[-1]["seconds"] if self._rows else 0)

    def head(self, state: str) -> str:
        """Draws the progress, in words `state`, and the figures, with the lowest validation loss, as HTML."""
        figures, held_out = self.figures(), self._column("validation_loss")
        if len(held_out) > 1:
            step = min(held_out, key=lambda step: held_out[step])
            figures["validation loss"] += f" (lowest {held_out[step]:.4f} at step {step})"
        return render("panel_head.html", summary=self, figures=figures, state=state)

    def body(self) -> str:
        """Draws the losses over the steps, and the newest validation images beside the base's, as HTML."""
        if not self._body:
            drawn = {"curves": self._curves(), "groups": self._images(), "prompt": self._prompt}
            self._body = render("panel_body.html", width=_WIDTH // 2, **drawn)
        return self._body

    def _column(self, name: str) -> dict[int, float]:
        return {row["step"]: row[name] for row in self._rows if name in row}

    def _curves(self) -> list[dict[str, str]]:
        curves = []
        for column, (title, colour) in _CURVES.items():
            if len(values := self._column(column)) > 1:
                if column == "loss":
                    values = dict(zip(values, smoothed(values.values()), strict=True))
                first, *_, last = values.values()
                words = f"{title}: from {first:.4f} to {last:.4f} at step {max(values)}"
                picture = thumbnails.data_uri(draw_curve(title, values, self.total, colour))
                curves.append({"uri": picture, "alt": words})
        return curves

    def _images(self) -> list[dict[str, Any]]:
        """The base's and the newest, as far as there are any."""
        files: dict[int, list[Path]] = {}
        for file in sorted(self._folder.glob("step_*_img*.png")):
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


def _thumbnail(file: Path) -> str:
    """Gives a picture for HTML; a lost one must not end a training."""
    try:
        picture = thumbnails.opened(file)
    except OSError:
        return ""
    return thumbnails.data_uri(thumbnails.fitted(picture, min(_SIDE, max(picture.size))), quality=70)


def draw_curve(title: str, values: Mapping[int, float], last: int, colour: str) -> bytes:
    """Draws one curve over the steps up to `last` as a WebP, in a tenth of the time that matplotlib takes."""
    from PIL import Image, ImageDraw

    from sdlab.typeset import font

    picture = Image.new("RGBA", (_WIDTH, _HEIGHT), (128, 128, 128, 0))
    drawing, letters = ImageDraw.Draw(picture), font(21)
    left, right, top, bottom = 92, _WIDTH - 14, 44, _HEIGHT - 40
    low, high = min(values.values()), max(values.values())
    span = max(high - low, abs(high) * 0.02, 1e-9)
    drawing.text((left, 4), title, _INK, font(21, bold=True))
    for share in (0, 0.5, 1):
        y = bottom - (bottom - top) * share
        drawing.line((left, y, right, y), fill=(128, 128, 128, 70), width=1)
        drawing.text((left - 10, y), f"{low + span * share:.3g}", _INK, letters, anchor="rm")
    drawing.text((left, bottom + 10), "0", _INK, letters, anchor="lt")
    drawing.text((right, bottom + 10), f"step {last}", _INK, letters, anchor="rt")
    points = [
        (left + (right - left) * step / max(last, 1), bottom - (bottom - top) * (value - low) / span)
        for step, value in values.items()
    ]
    drawing.line(points, fill=colour, width=4, joint="curve")
    drawing.circle(points[-1], 6, fill=colour)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, method=2)  # half of PNG's size in a third of its time
    return buffer.getvalue()
