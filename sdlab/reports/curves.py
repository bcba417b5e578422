"""Loss curves by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from sdlab import thumbnails
from sdlab.experiment import Experiment
from sdlab.scores import Interval, Scores, Tally
from sdlab.scores.plots import along
from sdlab.tables.captions import BASE
from sdlab.training.curve import smoothed
from sdlab.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

COLOURS = ("#3b6fd4", "#d9662c", "#3d9a57", "#9a4fb5", "#b08a1e", "#2aa0a8", "#c23b5a", "#6b7280")


def loss_curves(
    experiments: Sequence[Experiment], *, ordered: bool = False, language: str = "en"
) -> Image.Image | None:
    """Draw the losses of experiments over their steps: training, smoothed, and beside it held-out photos.

    The training loss misleads: it depends most of all on the random timesteps, and falls too when photos are
    learned by heart.

    Args:
        experiments: those with a log are drawn.
        ordered: whether they are a sweep, whose curves get the colours of a scale.
        language: of the labels, "en" or "ru".

    Returns:
        The picture, 840 points wide; None where no experiment has a log.

    Taught in: notebooks/02
    """
    training = {one.name: _column(one, "loss") for one in experiments}
    held_out = {one.name: _column(one, "validation_loss") for one in experiments}
    if not any(len(column) > 1 for column in training.values()):
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    say = Words(language)
    figure = Figure(figsize=(8.4, 3.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = 2 if any(len(column) > 1 for column in held_out.values()) else 1
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for index, name in enumerate(training):
        style = {"label": name, "color": _colour(index, len(training), ordered), "linewidth": 1.6}
        steps, losses = list(training[name]), list(training[name].values())
        axes[0].plot(steps, smoothed(losses), **style)
        if panels == 2:
            axes[1].plot(list(held_out[name]), list(held_out[name].values()), marker=".", **style)
    _dress(axes[0], say("step"), say("training_loss"))
    if panels == 2:
        _dress(axes[1], say("step"), say("held_out_loss"))
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture(figure)


def sweep_curves(
    experiments: Sequence[Experiment],
    hyperparameter: str,
    measurements: Mapping[str, Mapping[str, Any]],
    say: Words,
) -> Image.Image | None:
    """Draw what was measured along a sweep, the base model as a line across.

    Args:
        experiments: that differ in the hyperparameter alone.
        hyperparameter: such as "rank".
        measurements: experiment to name and value, or mean with its interval; up to three names are drawn.
        say: the language of the labels.

    Returns:
        The picture; None where fewer than two were measured.
    """
    known = [name for name in (BASE, *(one.name for one in experiments)) if measurements.get(name)]
    names = list(dict.fromkeys(name for one in known for name in measurements[one]))[:3]
    if len([name for name in known if name != BASE]) < 2:
        return None
    figures = {one: {name: _interval(value) for name, value in measurements[one].items()} for one in known}
    scores = Scores({one: Tally(one, values) for one, values in figures.items()})
    figure = along(scores, hyperparameter, names, language=say.language, root=experiments[0].root)
    for axes in figure.axes:
        axes.set_xlabel(say(f"what_{hyperparameter}"))
    return picture(figure)


def picture(figure: Figure) -> Image.Image:
    """A drawn figure as a picture.

    Args:
        figure: of matplotlib.

    Returns:
        RGB, at 150 dots per inch.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    buffer.seek(0)
    return thumbnails.opened(buffer)


def _interval(value: Any) -> Interval:
    """A plain number as a mean whose interval has no width."""
    return Interval(*map(float, value if isinstance(value, Sequence) else (value,) * 3))


def _column(experiment: Experiment, name: str) -> dict[int, float]:
    """Step to value, of the rows that have it."""
    return {row["step"]: row[name] for row in experiment.log() if name in row}


def _colour(index: int, number: int, ordered: bool) -> Any:
    from matplotlib import colormaps

    if ordered:
        return colormaps["viridis"](0.05 + 0.85 * index / max(1, number - 1))
    return COLOURS[index % len(COLOURS)]


def _dress(axes: Axes, step: str, what: str) -> None:
    axes.set_xlabel(step)
    axes.set_ylabel(what)
    _without_outliers(axes)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _without_outliers(axes: Axes) -> None:
    """Curves that leave the others far below (a training that broke) leave the picture, with their height."""
    values = {line: np.asarray(line.get_ydata(), float) for line in axes.get_lines()}
    heights = {line: float(column.max()) for line, column in values.items() if column.size}
    limit = 2 * median(heights.values())
    usual = [line for line in heights if heights[line] <= limit]
    if not 2 <= len(usual) < len(heights):
        return
    low = min(float(values[line].min()) for line in usual)
    high = max(heights[line] for line in usual)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    for place, line in enumerate(line for line in heights if line not in usual):
        said = f"\N{UPWARDS ARROW} {heights[line]:.2g}"
        height = 0.98 - 0.08 * place
        axes.text(0.04, height, said, transform=axes.transAxes, va="top", color=line.get_color(), fontsize=8)
