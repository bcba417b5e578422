"""Loss curves, and what was measured along a sweep, by matplotlib."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sdlab import thumbnails
from sdlab.experiment import Experiment
from sdlab.scores import Interval, Scores, Tally
from sdlab.scores.plots import along, tradeoff
from sdlab.tables.figures import BASE
from sdlab.verdict import smoothed
from sdlab.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image


def loss_curves(
    experiments: Sequence[Experiment], *, ordered: bool = False, language: str = "en"
) -> Image.Image | None:
    """Draws the losses of experiments that have a log: training, smoothed, and beside it held-out photos.

    The training loss misleads: it depends most of all on the random timesteps, and falls too when photos are
    memorised. The curves of a sweep, `ordered`, get the colours of a scale.

    Taught in: notebooks/02
    """
    losses = ["loss", "validation_loss"]
    logs = {one.name: pd.DataFrame(one.log(), columns=["step", *losses]) for one in experiments}
    drawn = [name for name in losses if any(log[name].count() > 1 for log in logs.values())]
    if "loss" not in drawn:
        return None
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    words, figure = Words(language), Figure(figsize=(8.4, 3.0), dpi=150, layout="constrained")
    colours = colormaps["viridis"].resampled(len(logs) + 1) if ordered else colormaps["tab10"]
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for column, axes in zip(drawn, panels, strict=True):
        for index, (name, log) in enumerate(logs.items()):
            rows = log.dropna(subset=[column])
            heights = smoothed(rows[column]) if column == "loss" else rows[column]
            marker, colour = "" if column == "loss" else ".", colours(index)
            axes.plot(rows["step"], heights, marker=marker, color=colour, linewidth=1.6, label=name)
        axes.set_xlabel(words("step"))
        axes.set_ylabel(words("training_loss" if column == "loss" else "held_out_loss"))
        _without_outliers(axes, words)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture(figure)


def sweep_curves(
    experiments: Sequence[Experiment],
    hyperparameter: str,
    measurements: Mapping[str, Mapping[str, Any]],
    words: Words,
) -> Image.Image | None:
    """Draws up to three measures that most have along a sweep; None where fewer than two were measured."""
    known = [name for name in (BASE, *(one.name for one in experiments)) if measurements.get(name)]
    if len(set(known) - {BASE}) < 2:
        return None
    figures = {one: {name: _interval(value) for name, value in measurements[one].items()} for one in known}
    counts = Counter(name for found in figures.values() for name in found)
    names = [name for name, count in counts.items() if count > len(known) / 2][:3]
    scores = Scores({one: Tally(one, found) for one, found in figures.items()})
    figure = along(scores, hyperparameter, names, language=words.language, root=experiments[0].root)
    for axes in figure.axes:
        axes.set_xlabel(words(f"what_{hyperparameter}"))
    return picture(figure)


def tradeoff_curve(scores: Scores, language: str) -> Image.Image | None:
    """Draws likeness against fidelity to the prompts; None where no experiment has both."""
    both = set(scores.of(scores.likeness)) & set(scores.of("CLIP-T"))
    return picture(tradeoff(scores, language)) if both else None


def picture(figure: Figure) -> Image.Image:
    """A drawn figure as a picture, 150 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return thumbnails.opened(buffer)


def _interval(value: Any) -> Interval:
    """A plain number as a mean whose interval has no width."""
    return Interval(*map(float, value if isinstance(value, Sequence) else (value,) * 3))


def _without_outliers(axes: Axes, words: Words) -> None:
    """A curve far above the others (a training that broke) leaves the picture; its name says so."""
    lines = [line for line in axes.get_lines() if np.size(line.get_ydata())]
    curves = [np.asarray(line.get_ydata(), float) for line in lines]
    highest = [curve.max() for curve in curves]
    limit = 2 * np.median(highest) if highest else 0
    usual = [curve for curve, top in zip(curves, highest, strict=True) if top <= limit]
    if 2 <= len(usual) < len(highest):
        for line, top in zip(lines, highest, strict=True):
            if top > limit:
                line.set_label(words("off_the_scale", name=line.get_label()))
        low, high = min(curve.min() for curve in usual), max(curve.max() for curve in usual)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
