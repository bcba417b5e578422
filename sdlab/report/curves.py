"""Loss curves by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdlab import thumbnails
from sdlab.experiment import Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

SMOOTHED = 0.85  # weight of what came before: noise of single batches hides the course of the loss
COLOURS = ("#3b6fd4", "#d9662c", "#3d9a57", "#9a4fb5", "#b08a1e", "#2aa0a8", "#c23b5a", "#6b7280")


def loss_curves(experiments: Sequence[Experiment], *, ordered: bool = False) -> Image.Image | None:
    """Draw the losses of experiments over their steps: training, smoothed, and beside it held-out photos.

    The training loss misleads: it depends most of all on the random timesteps, and falls too when photos are
    learned by heart.

    Args:
        experiments: those with a log are drawn.
        ordered: whether they are a sweep, whose curves get the colours of a scale.

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
    _dress(axes[0], "training loss, smoothed")
    if panels == 2:
        _dress(axes[1], "loss of held-out photos")
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return thumbnails.opened(buffer)


def _column(experiment: Experiment, name: str) -> dict[int, float]:
    """Step to value, of the rows that have it."""
    return {row["step"]: row[name] for row in experiment.log() if name in row}


def _colour(index: int, number: int, ordered: bool) -> Any:
    from matplotlib import colormaps

    if ordered:
        return colormaps["viridis"](0.05 + 0.85 * index / max(1, number - 1))
    return COLOURS[index % len(COLOURS)]


def smoothed(values: Sequence[float], weight: float = SMOOTHED) -> list[float]:
    """Exponential mean without the pull towards zero at the start.

    Args:
        values: the losses.
        weight: of what came before, 0 to below 1.

    Returns:
        As many values.

    Source: Kingma and Ba 2014, arXiv:1412.6980, section 3 (bias correction).
    """
    mean, out = 0.0, []
    for index, value in enumerate(values, 1):
        mean = weight * mean + (1 - weight) * value
        out.append(mean / (1 - weight**index))
    return out


def _dress(axes: Axes, what: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(what)
    low, high = axes.get_ylim()
    if low > 0 and high / low > 8:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
