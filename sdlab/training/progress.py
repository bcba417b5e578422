"""How a training shows its progress: a bar in a terminal, a panel in a notebook, nothing where not wanted."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol

from tqdm import tqdm

from sdlab import notebook
from sdlab.config import Hyperparameters
from sdlab.experiment import Experiment
from sdlab.training.summary import Summary

_SOONEST, _LATEST = 1.0, 5.0  # seconds between two refreshes of the panel
_SHARE = 0.01  # of the training's time that refreshes may take: the next one waits for so long


class Progress(Protocol):
    """What the loop tells of a training while it runs."""

    def __enter__(self) -> Progress: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def step(self, done: int) -> None:
        """So many steps are done."""

    def row(self, row: dict[str, Any]) -> None:
        """A row was written to the log."""

    def say(self, text: str) -> None:
        """A line that is worth keeping."""


def show(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    done: int,
    stop: threading.Event,
    progress: bool,
) -> Progress:
    """Chooses how the progress is shown.

    Args:
        experiment: That is trained.
        hyperparameters: Of the experiment.
        done: Steps done before.
        stop: Set by the panel's button; the loop then saves and returns.
        progress: Show anything.

    Returns:
        A panel in a notebook that somebody sees, else a bar.
    """
    summary = Summary(experiment, hyperparameters, done)
    if progress and notebook.has_widgets():
        return _Panel(summary, stop)
    return _Bar(summary, progress)


class _Bar:
    """tqdm's bar with the panel's figures; in a notebook, the summary stays in its place."""

    def __init__(self, summary: Summary, progress: bool) -> None:
        self._summary, self._shown = summary, progress
        self._bar = tqdm(
            total=summary.total,
            initial=summary.done,
            desc=summary.name,
            unit="step",
            disable=not progress,
            mininterval=0.5,
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._shown and notebook.kernel() is not None:
            from IPython.display import display

            display(_left(self._summary, kind), raw=True)

    def step(self, done: int) -> None:
        self._bar.update(done - self._summary.done)
        self._summary.done = done

    def row(self, row: dict[str, Any]) -> None:
        self._summary.add(row)
        self._bar.set_postfix(self._summary.figures(), refresh=False)

    def say(self, text: str) -> None:
        self._bar.write(f"{self._summary.name}: {text}")


class _Panel:
    """Figures, curves, images and a stop button, drawn anew once a second at most."""

    def __init__(self, summary: Summary, stop: threading.Event) -> None:
        import ipywidgets

        self._summary, self._stop = summary, stop
        self._head, self._body = ipywidgets.HTML(), ipywidgets.HTML()
        self._button = ipywidgets.Button(
            description="Stop and save",
            tooltip="Finishes the step and saves; train again to go on. Interrupting the kernel does too.",
            icon="stop",
        )
        self._button.on_click(self._ask)
        notebook.reachable(self._button)
        self._box = ipywidgets.VBox([self._head, self._body, self._button])
        self._next, self._changed = 0.0, True  # when to draw again, and whether there is a new row
        self._first: tuple[int, float] | None = None  # steps done and time, after the first step
        self._open = ExitStack()

    def __enter__(self) -> _Panel:
        from IPython.display import display

        self._answer = self._open.enter_context(notebook.clicks())
        self._draw()
        text = f"{self._summary.name}: training"
        shown = notebook.bundle(self._head.value + self._body.value, text, self._box)
        self._place = display(shown, raw=True, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._place.update(_left(self._summary, kind), raw=True)
        for widget in (self._box, self._head, self._body, self._button):
            widget.close()

    def step(self, done: int) -> None:
        now = time.perf_counter()
        self._summary.done = done
        self._first = self._first or (done, now)
        if now >= self._next:
            self._answer()
            self._draw()

    def row(self, row: dict[str, Any]) -> None:
        self._summary.add(row)
        self._changed = True

    def say(self, text: str) -> None:
        self._summary.notes.append(text)

    def _draw(self) -> None:
        start = time.perf_counter()
        self._head.value = self._summary.head(self._state())
        if self._changed:
            self._body.value = self._summary.body()
        self._changed = False
        end = time.perf_counter()
        self._next = end + min(max((end - start) / _SHARE, _SOONEST), _LATEST)

    def _state(self) -> str:
        summary = self._summary
        state = f"step {summary.done} of {summary.total}"
        if self._stop.is_set():
            return f"{state}, stopping: saving what is there"
        if self._first is None or self._first[0] == summary.done:
            return state
        before, since = self._first
        pace = (time.perf_counter() - since) / (summary.done - before)
        left = tqdm.format_interval(pace * (summary.total - summary.done))
        speed = f"{1 / pace:.2g} steps a second" if pace < 1 else f"{pace:.3g} s a step"
        return f"{state}, {speed}, {left} left"

    def _ask(self, button: Any) -> None:
        self._stop.set()
        button.description, button.disabled = "Stopping …", True


def _left(summary: Summary, error: type[BaseException] | None) -> dict[str, Any]:
    """What stays in the notebook when the training has ended, however it ended."""
    took = tqdm.format_interval(summary.seconds)
    state = f"step {summary.done} of {summary.total}, after {took}"
    if error is not None:
        state += f", ended by {error.__name__}"
    elif summary.done < summary.total:
        state += ", stopped; train it again to go on"
    figures = ", ".join(f"{name} {value}" for name, value in summary.figures().items())
    return notebook.bundle(summary.head(state) + summary.body(), f"{summary.name}: {state}; {figures}")
