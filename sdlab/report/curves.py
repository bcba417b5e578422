"""Loss curves by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdlab import thumbnails
from sdlab.experiment import Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

SMOOTHED = 0.85  # weight of what came before: noise of single batches hides the course of the loss
COLOURS = ("#3b6fd4", "#d9662c", "#3d9a57", "#9a4fb5", "#b08a1e", "#2aa0a8", "#c23b5a", "#6b7280")


def loss_curves(experiments: Sequence[Experiment], *, ordered: bool = False) -> Image.Image | None:
    """Draw the training loss of experiments, smoothed, over their steps.

    Args:
        experiments: those with a log are drawn.
        ordered: whether they are a sweep, whose curves get the colours of a scale.

    Returns:
        The picture, 840 points wide; None where no experiment has a log.

    Taught in: notebooks/02
    """
    logs = {one.name: [(row["step"], row["loss"]) for row in one.log()] for one in experiments}
    logs = {name: log for name, log in logs.items() if len(log) > 1}
    if not logs:
        return None
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    scale = colormaps["viridis"]
    for index, (name, log) in enumerate(logs.items()):
        colour = (
            scale(0.05 + 0.85 * index / max(1, len(logs) - 1)) if ordered else COLOURS[index % len(COLOURS)]
        )
        steps = [step for step, _ in log]
        axes.plot(steps, smoothed([loss for _, loss in log]), label=name, color=colour, linewidth=1.6)
    _dress(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return thumbnails.opened(buffer)


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


def _dress(axes: Axes) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel("training loss, smoothed")
    low, high = axes.get_ylim()
    if low > 0 and high / low > 8:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
