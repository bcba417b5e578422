"""Scores as plots: likeness against prompt fidelity, along a hyperparameter, over a grid of two."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.config import number
from sdlab.files import write_bytes
from sdlab.scores.measures import Interval
from sdlab.scores.scoring import experiment_of
from sdlab.scores.tallies import PHOTOS, Scores, measure_name
from sdlab.tables.captions import METHOD_NAMES, NOT_SHOWN, hyperparameters_of, written
from sdlab.words import Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

MARKERS = "osD^vP*Xph<>"  # tell the experiments apart in black and white
LINES = ("-", "--", "-.", (0, (1, 1)))
INK, QUIET = "#1d1f24", "#676d78"


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Writes a plot as PNG for the screen and as PDF for print; the path's ending is replaced."""
    written = []
    for ending in (".png", ".pdf"):
        data = io.BytesIO()
        figure.savefig(data, format=ending[1:], dpi=150)
        written.append(write_bytes(Path(path).with_suffix(ending), data.getvalue()))
    return written


def tradeoff(scores: Scores, language: str = "en") -> Figure:
    """Draws likeness against prompt fidelity, a point with its intervals for each experiment.

    Points that no other beats in both (the Pareto front) are filled, a dashed line joins them. Checkpoints
    (`lora@step50`) are joined by a line with `lora`, LoRA scales (`lora@0.7`) by a dotted one.
    """
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    points = {name: (fidelity[name], likeness[name]) for name in likeness if name in fidelity}
    if not points:
        raise ValueError("No experiment has both likeness and CLIP-T. Score images of prompts with `sks`.")
    words, (figure, axes) = Words(language), _figure(7.2, 4.6)

    def line(names: Sequence[str], style: str, colour: str = QUIET) -> None:
        if len(names) > 1:
            means = [[figure[0] for figure in points[name]] for name in names]
            axes.plot(*zip(*means, strict=True), style, color=colour, linewidth=1, zorder=0)

    front = pareto({name: (x[0], y[0]) for name, (x, y) in points.items()})
    line(front, "--", INK)
    for (group, members), marker in zip(_groups(points).items(), cycle(MARKERS), strict=False):
        line([name for name in members if "@step" in name or name == group], "-")
        line([name for name in members if "@step" not in name], ":")
        for name in members:
            x, y = points[name]
            axes.errorbar(
                x[0], y[0], xerr=_lengths([x]), yerr=_lengths([y]), marker=marker, markersize=7, color=INK,
                markerfacecolor=INK if name in front else "white", elinewidth=0.7, linestyle="none",
                label=group if name == members[-1] else None,
            )  # fmt: skip
            if len(members) > 1 and name != group:
                place = {"xytext": (5, 4), "textcoords": "offset points"}
                axes.annotate(name.split("@")[1], (x[0], y[0]), fontsize=7, color=QUIET, **place)
    if PHOTOS in scores.tallies and scores.likeness in scores[PHOTOS].figures:
        level = scores[PHOTOS].figures[scores.likeness][0]
        axes.axhline(level, color=QUIET, linestyle=":", linewidth=1, label=words("axis_photos"))
    axes.set_xlabel(measure_name("CLIP-T", words))
    axes.set_ylabel(measure_name(scores.likeness, words))
    axes.set_title(words("axis_front"), fontsize=8, loc="left", color=QUIET)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other beats in both figures, by the first figure."""
    front = [
        name
        for name, (x, y) in points.items()
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
    ]
    return sorted(front, key=lambda name: points[name])


def along(
    scores: Scores,
    hyperparameter: str,
    measures: Sequence[str] | None = None,
    *,
    language: str = "en",
    root: str | Path = "experiments",
) -> Figure:
    """Draws measures (None: likeness and CLIP-T) against a hyperparameter, the base model as a line across.

    A line joins experiments that differ in the hyperparameter alone.
    """
    lines = _lines(_hyperparameters(scores, root), hyperparameter)
    chosen, words = list(measures or (scores.likeness, "CLIP-T")), Words(language)
    figure, *panels = _figure(3.9 * len(chosen), 3.4, panels=len(chosen))
    for axes, measure in zip(panels, chosen, strict=True):
        known = scores.of(measure)
        for (label, values), marker, style in zip(lines.items(), cycle(MARKERS), cycle(LINES), strict=False):
            shown = [name for name in values if name in known]
            axes.errorbar(
                [values[name] for name in shown], [known[name][0] for name in shown],
                yerr=_lengths([known[name] for name in shown]), label=label or None, color=INK, capsize=3,
                linewidth=1.2, marker=marker, linestyle=style,
            )  # fmt: skip
        if "base" in known:
            mean, low, high = known["base"]
            axes.axhspan(low, high, color="#dddddd", zorder=0)
            axes.axhline(mean, color=QUIET, linestyle=":", label=words("base"))
        axes.set_xscale("log", base=2 if hyperparameter == "rank" else 10)
        if hyperparameter == "rank":
            ticks = sorted({value for values in lines.values() for value in values.values()})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel(words.name(hyperparameter).replace("_", " "))
        axes.set_ylabel(measure_name(measure, words))
    panels[-1].legend(frameon=False, fontsize=8)
    return figure


def heat_map(
    scores: Scores,
    across: str = "learning_rate",
    down: str = "rank",
    measure: str | None = None,
    *,
    root: str | Path = "experiments",
) -> Figure:
    """Draws one measure (None: likeness) over a grid of two hyperparameters, the figure in each field."""
    import numpy as np
    import pandas as pd

    known = scores.of(measure or scores.likeness)
    table = _hyperparameters(scores, root).reindex(columns=[across, down]).dropna()
    table = table.assign(mean=pd.Series({name: figure[0] for name, figure in known.items()})).dropna()
    if table.empty:
        raise ValueError(f"No scored experiment has both {across!r} and {down!r}. Score a sweep's.")
    grid = table.pivot_table(index=down, columns=across, values="mean", aggfunc="last")
    low, high = table["mean"].min(), table["mean"].max()
    figure, axes = _figure(2.2 + 1.1 * grid.shape[1], 1.6 + 0.7 * grid.shape[0])
    # a little below the smallest, so that its field isn't taken for an empty one
    floor = low - 0.15 * ((high - low) or 1)
    picture = axes.imshow(grid, cmap="Greys", aspect="auto", origin="lower", vmin=floor)
    for (row, column), value in np.ndenumerate(grid.to_numpy()):
        ink = "white" if value > (low + high) / 2 else "black"
        text = "" if np.isnan(value) else f"{value:.3f}"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(grid.shape[1]), [number(value) for value in grid.columns])
    axes.set_yticks(range(grid.shape[0]), [number(value) for value in grid.index])
    axes.set_xlabel(across.replace("_", " "))
    axes.set_ylabel(down.replace("_", " "))
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label=measure_name(measure or scores.likeness, Words()))
    return figure


def _figure(width: float, height: float, panels: int = 1) -> tuple[Any, ...]:
    """A figure that no pyplot keeps, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    return (figure, *axes)


def _groups(names: Mapping[str, Any]) -> dict[str, list[str]]:
    """Experiments with their checkpoints, then their scales in order; the experiment itself is scale 1."""

    def place(name: str) -> tuple[bool, float]:
        detail = name.partition("@")[2]
        found = re.search(r"\d+(\.\d+)?", detail)
        return not detail.startswith("step"), float(found[0]) if found else 1.0

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split("@")[0], []).append(name)
    return {group: sorted(members, key=place) for group, members in groups.items()}


def _lengths(figures: Sequence[Interval]) -> list[list[float]]:
    """Lengths below and above the means, as matplotlib wants them."""
    return [[max(0.0, m - low) for m, low, _ in figures], [max(0.0, high - m) for m, _, high in figures]]


def _hyperparameters(scores: Scores, root: str | Path) -> DataFrame:
    """One row per whole experiment on this disk, one column per hyperparameter that may change the result."""
    import pandas as pd

    found = {name: experiment_of(name, root) for name in scores.experiments}
    whole = [name for name, one in found.items() if one is not None and one.name == name]
    table = pd.DataFrame.from_dict({name: hyperparameters_of(name, root) for name in whole}, orient="index")
    return table.drop(columns=NOT_SHOWN - {"method"}, errors="ignore")


def _lines(table: DataFrame, hyperparameter: str) -> dict[str, dict[str, float]]:
    """What else sets a line apart to its experiments and their values of the hyperparameter, by value."""
    lines, firsts = [], []
    if hyperparameter in table:
        others = table.drop(columns=hyperparameter).map(str)
        for _, part in table.groupby(others.apply(tuple, axis=1), sort=False):
            if part[hyperparameter].nunique() > 1:
                lines.append(part[hyperparameter].sort_values().to_dict())
                firsts.append(part.iloc[0].drop(hyperparameter))
    if not lines:
        raise ValueError(
            f"At least two experiments must differ in {hyperparameter!r} alone, got {[*table.index]}."
        )
    differing = [key for key in firsts[0].index if len({str(first[key]) for first in firsts}) > 1]
    labels = [", ".join(_label(key, first[key]) for key in differing) for first in firsts]
    return dict(zip(labels, lines, strict=True))


def _label(key: str, value: Any) -> str:
    return METHOD_NAMES[value] if key == "method" else written(key, value).replace("_", " ")
