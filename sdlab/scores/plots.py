"""Scores as plots: likeness against prompt fidelity, along a hyperparameter, over a grid of two."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.files import write_bytes
from sdlab.scores.intervals import Interval
from sdlab.scores.scoring import experiment_of
from sdlab.scores.tally import PHOTOS, Scores
from sdlab.tables.captions import METHOD_NAMES, NOT_SHOWN, hyperparameters_of, number, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*Xph<>"  # tell the experiments apart in black and white
LINES = ("-", "--", "-.", (0, (1, 1)))
_PLACES = NOT_SHOWN - {"method"}  # where files lie makes no other line
INK, QUIET = "#1d1f24", "#676d78"


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Writes a plot as PNG for the screen and as PDF for print.

    Args:
        figure: From one of the functions here.
        path: Where; its ending is replaced.

    Returns:
        The two paths.
    """
    written = []
    for ending in (".png", ".pdf"):
        data = io.BytesIO()
        figure.savefig(data, format=ending[1:], dpi=150)
        written.append(write_bytes(Path(path).with_suffix(ending), data.getvalue()))
    return written


def tradeoff(scores: Scores) -> Figure:
    """Draws likeness against prompt fidelity: a point per experiment, its checkpoints joined by a line.

    Names such as `lora@step50` and `lora@0.7` belong to `lora`; a dotted line joins the scales. Points that
    no other beats in both measures (the Pareto front) are filled, and a dashed line joins them.

    Args:
        scores: Of at least one experiment with CLIP-T.

    Returns:
        The plot.

    Raises:
        ValueError: Nothing has both measures.
    """
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    points = {name: (fidelity[name], likeness[name]) for name in likeness if name in fidelity}
    if not points:
        raise ValueError("No experiment has both likeness and CLIP-T. Score images of prompts with `sks`.")
    figure, axes = _figure(7.2, 4.6)
    front = pareto({name: (x[0], y[0]) for name, (x, y) in points.items()})
    for index, (group, members) in enumerate(_groups(points).items()):
        marker = MARKERS[index % len(MARKERS)]
        for style, line in _courses(members):
            x, y = ([points[name][axis][0] for name in line] for axis in (0, 1))
            axes.plot(x, y, style, color=QUIET, linewidth=1, zorder=1)
        for name in members:
            fill = INK if name in front else "white"
            _point(axes, *points[name], marker=marker, fill=fill, label=group if name == members[-1] else "")
            if len(members) > 1 and name != group:
                axes.annotate(name.split("@")[1], (points[name][0][0], points[name][1][0]), **_BESIDE)
    if len(front) > 1:
        x, y = ([points[name][axis][0] for name in front] for axis in (0, 1))
        axes.plot(x, y, "--", color=INK, linewidth=1, zorder=0)
    _ceiling(axes, scores)
    axes.set_xlabel("prompt fidelity (CLIP-T)")
    axes.set_ylabel(f"likeness ({scores.likeness})")
    axes.set_title("filled: no other is better in both", fontsize=8, loc="left", color=QUIET)
    _legend(axes)
    return figure


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Finds the points that no other beats in both coordinates.

    Args:
        points: Name to two figures of which more is better.

    Returns:
        Their names, by the first figure.
    """
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
    root: str | Path = "experiments",
) -> Figure:
    """Draws scores against a hyperparameter on a logarithmic axis, the base model as a line across.

    Args:
        scores: Of a sweep, with or without `base`.
        hyperparameter: Such as `learning_rate` or `rank`.
        measures: Keys of `MEASURES`; None takes likeness and CLIP-T.
        root: The folder of all experiments.

    Returns:
        The plot, one panel per measure; a line joins experiments that differ in the hyperparameter alone.

    Raises:
        ValueError: No two experiments differ in the hyperparameter alone.
    """
    values = _values(scores, hyperparameter, root)
    lines = _lines(values, hyperparameter, root)
    if not lines:
        raise ValueError(
            f"At least two experiments must differ in {hyperparameter!r} alone, got {[*values]}."
        )
    chosen = list(measures or (scores.likeness, "CLIP-T"))
    figure, *panels = _figure(3.9 * len(chosen), 3.4, panels=len(chosen))
    for axes, measure in zip(panels, chosen, strict=True):
        known = scores.of(measure)
        for index, (label, members) in enumerate(lines.items()):
            shown = [name for name in members if name in known]
            axes.errorbar(
                [values[n] for n in shown], [known[n][0] for n in shown],
                yerr=_errors([known[n] for n in shown]), label=label or None, color=INK, capsize=3,
                linewidth=1.2, marker=MARKERS[index % len(MARKERS)], linestyle=LINES[index % len(LINES)],
            )  # fmt: skip
        if "base" in known:
            mean, low, high = known["base"]
            axes.axhspan(low, high, color="#dddddd", zorder=0)
            axes.axhline(mean, color=QUIET, linestyle=":", label="base model")
        axes.set_xscale("log", base=2 if hyperparameter == "rank" else 10)
        if hyperparameter == "rank":
            ticks = sorted({values[name] for members in lines.values() for name in members})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel(hyperparameter.replace("_", " "))
        axes.set_ylabel(_axis(measure, scores))
    panels[-1].legend(frameon=False, fontsize=8)
    return figure


def _lines(values: Mapping[str, float], hyperparameter: str, root: str | Path) -> dict[str, list[str]]:
    """Experiments that differ in one hyperparameter alone, in its order, under what else sets them apart."""
    others = {
        name: {k: v for k, v in hyperparameters_of(name, root).items() if k not in (hyperparameter, *_PLACES)}
        for name in sorted(values, key=lambda name: values[name])
    }
    alike: dict[str, list[str]] = {}
    for name, mine in others.items():
        alike.setdefault(str(mine), []).append(name)
    lines = [names for names in alike.values() if len({values[name] for name in names}) > 1]
    firsts = [others[names[0]] for names in lines]
    differing = [
        key
        for key in dict.fromkeys(key for first in firsts for key in first)
        if len({str(first.get(key)) for first in firsts}) > 1
    ]
    return {
        ", ".join(_said(key, first[key]) for key in differing if key in first): names
        for first, names in zip(firsts, lines, strict=True)
    }


def _said(key: str, value: Any) -> str:
    return METHOD_NAMES[value] if key == "method" else written(key, value).replace("_", " ")


def heat_map(
    scores: Scores,
    across: str = "learning_rate",
    down: str = "rank",
    measure: str | None = None,
    *,
    root: str | Path = "experiments",
) -> Figure:
    """Draws one measure over a grid of two hyperparameters, the figure in each field.

    Args:
        scores: Of the grid's experiments; others are passed over.
        across: The hyperparameter of the columns.
        down: The hyperparameter of the rows.
        measure: A key of `MEASURES`; None takes likeness.
        root: The folder of all experiments.

    Returns:
        The plot; a field without an experiment is empty.

    Raises:
        ValueError: No experiment has both hyperparameters.
    """
    import numpy as np

    known = scores.of(measure or scores.likeness)
    x, y = _values(scores, across, root), _values(scores, down, root)
    names = [name for name in known if name in x and name in y]
    if not names:
        raise ValueError(f"No scored experiment has both {across!r} and {down!r}. Score a sweep's.")
    columns, rows = sorted({x[n] for n in names}), sorted({y[n] for n in names})
    grid = np.full((len(rows), len(columns)), np.nan)
    for name in names:
        grid[rows.index(y[name]), columns.index(x[name])] = known[name][0]
    figure, axes = _figure(2.2 + 1.1 * len(columns), 1.6 + 0.7 * len(rows))
    picture = axes.imshow(grid, cmap="Greys", aspect="auto", origin="lower", vmin=_floor(grid))
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            ink = "white" if value > middle else "black"
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(columns)), [_tick(value) for value in columns])
    axes.set_yticks(range(len(rows)), [_tick(value) for value in rows])
    axes.set_xlabel(across.replace("_", " "))
    axes.set_ylabel(down.replace("_", " "))
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label=_axis(measure or scores.likeness, scores))
    return figure


_BESIDE: dict[str, Any] = {
    "textcoords": "offset points",
    "xytext": (5, 4),
    "fontsize": 7,
    "color": QUIET,
}


def _figure(width: float, height: float, panels: int = 1) -> tuple[Any, ...]:
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
    """Experiments with their checkpoints and scales in order, the whole experiment last."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split("@")[0], []).append(name)
    return {group: sorted(members, key=_place) for group, members in groups.items()}


def _courses(members: list[str]) -> list[tuple[str, list[str]]]:
    """An experiment's checkpoints up to itself, and its scales with itself as 1: line style and names."""
    checkpoints = [name for name in members if "@step" in name or "@" not in name]
    scales = [name for name in members if "@step" not in name]
    return [(style, line) for style, line in (("-", checkpoints), (":", scales)) if len(line) > 1]


def _place(name: str) -> float:
    """A checkpoint's step or a LoRA's scale; the experiment itself is scale 1, after every checkpoint."""
    detail = name.partition("@")[2]
    if step := re.fullmatch(r"step(\d+)", detail):
        return int(step[1]) - 1e9
    return float(detail) if re.fullmatch(r"\d+(\.\d+)?", detail) else 1.0


def _point(axes: Axes, x: Interval, y: Interval, *, marker: str, fill: str, label: str) -> None:
    axes.errorbar(
        x[0], y[0], xerr=_errors([x]), yerr=_errors([y]), marker=marker, markersize=7, color=INK,
        markerfacecolor=fill, elinewidth=0.7, linestyle="none", label=label or None,
    )  # fmt: skip


def _errors(figures: Sequence[Interval]) -> list[list[float]]:
    """Lengths below and above the means, as matplotlib wants them."""
    return [[max(0.0, m - low) for m, low, _ in figures], [max(0.0, high - m) for m, _, high in figures]]


def _ceiling(axes: Axes, scores: Scores) -> None:
    """What the photos reach among themselves."""
    if PHOTOS in scores.tallies and scores.likeness in scores[PHOTOS].figures:
        level = scores[PHOTOS].figures[scores.likeness][0]
        axes.axhline(level, color=QUIET, linestyle=":", linewidth=1, label="photos among themselves")


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _axis(measure: str, scores: Scores) -> str:
    if measure == scores.likeness:
        return f"likeness ({measure})"
    return "prompt fidelity (CLIP-T)" if measure == "CLIP-T" else measure


def _values(scores: Scores, hyperparameter: str, root: str | Path) -> dict[str, float]:
    """A hyperparameter of each whole experiment that has it as a number."""
    found = {}
    for name in scores.experiments:
        experiment = experiment_of(name, root)
        if experiment is None or experiment.name != name:
            continue
        value = getattr(experiment.hyperparameters, hyperparameter, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def _tick(value: float) -> str:
    return number(int(value) if value.is_integer() else value)


def _floor(grid: Any) -> float:
    """A little below the smallest, so that its field isn't taken for an empty one."""
    import numpy as np

    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    return low - 0.15 * ((high - low) or 1)
