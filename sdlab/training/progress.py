"""How trainings show their progress: a bar in a terminal, a panel in a notebook, nothing where not wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from tqdm import tqdm

from sdlab import notebook
from sdlab.training.setup import Training
from sdlab.training.summary import Summary

_SOONEST, _LATEST = 1.0, 5.0  # seconds between two refreshes of the panel
_SHARE = 0.01  # of the training's time that refreshes may take: the next one waits for so long


def show(trainings: Sequence[Training], stop: threading.Event, progress: bool) -> Bar | Panel:
    """Gives a panel, whose button sets `stop`, in a notebook that somebody sees; else a bar."""
    if progress and notebook.has_widgets():
        return Panel(trainings, stop)
    return Bar(trainings, progress)


class Bar:
    """tqdm's bar with the panel's figures; in a notebook, the summaries stay in its place."""

    def __init__(self, trainings: Sequence[Training], progress: bool) -> None:
        self._trainings, self._shown = trainings, progress
        self._summaries = {one.adapter: Summary.of(one) for one in trainings}
        first = next(iter(self._summaries.values()))
        self._name = first.name if len(trainings) == 1 else f"{len(trainings)} in one pass"
        self._bar = tqdm(
            total=first.total,
            initial=min(one.done for one in trainings),
            desc=self._name,
            unit="step",
            disable=not progress,
            mininterval=0.5,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._shown and notebook.kernel() is not None:
            _leave(self._trainings, self._summaries, kind)

    def step(self) -> None:
        """A step is done."""
        self._bar.update()

    def row(self, training: Training, row: dict[str, Any]) -> None:
        """A row was written to the training's log."""
        self._summaries[training.adapter].add(row)
        if len(self._trainings) == 1:
            self._bar.set_postfix(self._summaries[training.adapter].figures(), refresh=False)

    def say(self, text: str) -> None:
        """A line that is worth keeping."""
        if not self._shown:
            return
        with suppress(OSError):  # a closed pipe
            self._bar.write(f"{self._name}: {text}")


class Panel:
    """Figures, curves, images and a stop button, drawn anew once a second at most."""

    def __init__(self, trainings: Sequence[Training], stop: threading.Event) -> None:
        import ipywidgets

        self._trainings, self._stop = trainings, stop
        self._summaries = {one.adapter: Summary.of(one) for one in trainings}
        self._steps = 0
        self._since: float | None = None  # the end of the first step, which warms up
        self._heads = {adapter: ipywidgets.HTML() for adapter in self._summaries}
        self._bodies = {adapter: ipywidgets.HTML() for adapter in self._summaries}
        self._button = ipywidgets.Button(
            description="Stop and save",
            tooltip="Finishes the step and saves; train again to go on. Interrupting the kernel does too.",
            icon="stop",
        )
        self._button.on_click(self._ask)
        notebook.reachable(self._button)
        self._widgets = [
            widget
            for pair in zip(self._heads.values(), self._bodies.values(), strict=True)
            for widget in pair
        ]
        self._box = ipywidgets.VBox([*self._widgets, self._button])
        self._next, self._changed = 0.0, set(self._summaries)  # when to draw again, and which have new rows
        self._open = ExitStack()

    def __enter__(self) -> Panel:
        from IPython.display import display

        self._answer = self._open.enter_context(notebook.clicks())
        self._draw()
        text = ", ".join(summary.name for summary in self._summaries.values()) + ": training"
        html = "".join(widget.value for widget in self._widgets)
        self._place = display(notebook.bundle(html, text, self._box), raw=True, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._place.update(*_left(self._trainings[:1], self._summaries, kind), raw=True)
        _leave(self._trainings[1:], self._summaries, kind)
        for widget in (self._box, *self._widgets, self._button):
            widget.close()

    def step(self) -> None:
        now = time.perf_counter()
        self._steps += 1
        self._since = self._since or now
        if now >= self._next:
            self._answer()
            self._draw()

    def row(self, training: Training, row: dict[str, Any]) -> None:
        self._summaries[training.adapter].add(row)
        self._changed.add(training.adapter)

    def say(self, text: str) -> None:
        next(iter(self._summaries.values())).notes.append(text)

    def _draw(self) -> None:
        start = time.perf_counter()
        for training in self._trainings:
            summary = self._summaries[training.adapter]
            summary.done = training.done
            self._heads[training.adapter].value = summary.head(self._state(training))
            if training.adapter in self._changed:
                self._bodies[training.adapter].value = summary.body()
        self._changed.clear()
        end = time.perf_counter()
        self._next = end + min(max((end - start) / _SHARE, _SOONEST), _LATEST)

    def _state(self, training: Training) -> str:
        total = training.hyperparameters.max_train_steps
        state = f"step {training.done} of {total}"
        if self._stop.is_set():
            return f"{state}, stopping: saving what is there"
        if self._since is None or self._steps < 2:
            return state
        pace = (time.perf_counter() - self._since) / (self._steps - 1)
        left = tqdm.format_interval(pace * (total - training.done))
        speed = f"{1 / pace:.2g} steps a second" if pace < 1 else f"{pace:.3g} s a step"
        return f"{state}, {speed}, {left} left"

    def _ask(self, button: Any) -> None:
        self._stop.set()
        button.description, button.disabled = "Stopping …", True


def _leave(
    trainings: Sequence[Training], summaries: dict[str, Summary], error: type[BaseException] | None
) -> None:
    from IPython.display import display

    for shown in _left(trainings, summaries, error):
        display(shown, raw=True)


def _left(
    trainings: Sequence[Training], summaries: dict[str, Summary], error: type[BaseException] | None
) -> list[dict[str, Any]]:
    """What stays in the notebook of each training when it has ended, however it ended."""
    left = []
    for training in trainings:
        summary = summaries[training.adapter]
        summary.done = training.done
        state = f"step {summary.done} of {summary.total}, after {tqdm.format_interval(summary.seconds)}"
        if error is not None:
            state += f", ended by {error.__name__}"
        elif not training.finished:
            state += ", stopped; train it again to go on"
        figures = ", ".join(f"{name} {value}" for name, value in summary.figures().items())
        left.append(
            notebook.bundle(summary.head(state) + summary.body(), f"{summary.name}: {state}; {figures}")
        )
    return left
