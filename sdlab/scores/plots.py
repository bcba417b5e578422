"""Scores as pictures: likeness against prompt fidelity, along hyperparameters, and sheets of images."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sdlab.config import number
from sdlab.files import write_bytes
from sdlab.images import load_images
from sdlab.prompts import PromptSet
from sdlab.scores.measures import Interval
from sdlab.scores.scoring import rare_words, without
from sdlab.scores.tallies import PHOTOS, SHARES, Scores, Tally, measure_name, score_again
from sdlab.tables import Cell, Heading, Table, captions, table
from sdlab.tables.figures import METHOD_NAMES, NOT_SHOWN, hyperparameters_of, written
from sdlab.words import Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP*Xph<>"  # tell the experiments apart in black and white
LINES = ("-", "--", "-.", (0, (1, 1)))
INK, QUIET = "#1d1f24", "#676d78"


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Writes a plot as PNG for the screen and as PDF for print; the path's ending is replaced."""
    files = []
    for ending in (".png", ".pdf"):
        data = io.BytesIO()
        figure.savefig(data, format=ending[1:], dpi=150)
        files.append(write_bytes(Path(path).with_suffix(ending), data.getvalue()))
    return files


def tradeoff(scores: Scores, language: str = "en") -> Figure:
    """Draws likeness against prompt fidelity, a point with its intervals for each experiment.

    Points that no other beats in both (the Pareto front) are filled, a dashed line joins them. Checkpoints
    (`lora@step50`) are joined by a line with `lora`, LoRA scales (`lora@0.7`) by a dotted one.
    """
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    points = {name: (fidelity[name].mean, likeness[name].mean) for name in likeness if name in fidelity}
    if not points:
        raise ValueError("No experiment has both likeness and CLIP-T. Score images of prompts with `sks`.")
    words, (figure, axes) = Words(language), _figure(7.2, 4.6)

    def line(names: Sequence[str], style: str, colour: str = QUIET) -> None:
        if len(names) > 1:
            axes.plot(*np.array([points[n] for n in names]).T, style, color=colour, linewidth=1, zorder=0)

    front = pareto(points)
    line(front, "--", INK)
    for (group, members), marker in zip(_groups(points).items(), cycle(MARKERS), strict=False):
        for style, steps in (("-", True), (":", False)):
            line([name for name in members if name == group or ("@step" in name) == steps], style)
        x, y = np.array([points[name] for name in members]).T
        across, up = (_lengths([figures[name] for name in members]) for figures in (fidelity, likeness))
        axes.errorbar(x, y, xerr=across, yerr=up, fmt="none", ecolor=INK, elinewidth=0.7, zorder=1)
        inside = [INK if name in front else "white" for name in members]
        axes.scatter(x, y, s=49, marker=marker, edgecolors=INK, facecolors=inside, label=group, zorder=2)
        place = {"xytext": (5, 4), "textcoords": "offset points"}
        for name in members:
            axes.annotate(name.partition("@")[2], points[name], fontsize=7, color=QUIET, **place)
    if PHOTOS in scores.tallies and scores.likeness in scores[PHOTOS].figures:
        level = scores[PHOTOS].figures[scores.likeness].mean
        axes.axhline(level, color=QUIET, linestyle=":", linewidth=1, label=words("axis_photos"))
    axes.set(xlabel=measure_name("CLIP-T", words), ylabel=measure_name(scores.likeness, words))
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
            shown = values[values.index.isin(list(known))]
            heights = [known[name] for name in shown.index]
            look = {"color": INK, "capsize": 3, "linewidth": 1.2, "marker": marker, "linestyle": style}
            means = [one.mean for one in heights]
            axes.errorbar(shown, means, yerr=_lengths(heights), label=label or None, **look)
        if "base" in known:
            axes.axhspan(known["base"].low, known["base"].high, color="#dddddd", zorder=0)
            axes.axhline(known["base"].mean, color=QUIET, linestyle=":", label=words("base"))
        axes.set_xscale("log", base=2 if hyperparameter == "rank" else 10)
        if hyperparameter == "rank":
            ticks = sorted(set(pd.concat(lines.values())))
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set(xlabel=words.name(hyperparameter).replace("_", " "), ylabel=measure_name(measure, words))
        if measure in SHARES:
            axes.set_ylim(-0.03, 1.03)
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
    measure = measure or scores.likeness
    means = pd.Series({name: figure.mean for name, figure in scores.of(measure).items()}, dtype=float)
    known = _hyperparameters(scores, root).reindex(columns=[across, down]).assign(mean=means).dropna()
    if known.empty:
        raise ValueError(f"No scored experiment has both {across!r} and {down!r}. Score a sweep's.")
    grid = known.pivot_table(index=down, columns=across, values="mean", aggfunc="last")
    low, high = known["mean"].min(), known["mean"].max()
    figure, axes = _figure(2.2 + 1.1 * grid.shape[1], 1.6 + 0.7 * grid.shape[0])
    # a little below the smallest, so that its field isn't taken for an empty one
    floor = low - 0.15 * ((high - low) or 1)
    picture = axes.imshow(grid, cmap="Greys", aspect="auto", origin="lower", vmin=floor)
    for (row, column), value in np.ndenumerate(grid.to_numpy()):
        if not np.isnan(value):
            ink = "white" if value > (low + high) / 2 else "black"
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(grid.shape[1]), [number(value) for value in grid.columns])
    axes.set_yticks(range(grid.shape[0]), [number(value) for value in grid.index])
    axes.set(xlabel=across.replace("_", " "), ylabel=down.replace("_", " "))
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label=measure_name(measure, Words()))
    return figure


def nearest_photos(
    experiment: str,
    *,
    count: int = 6,
    photos: str | Path | None = None,
    root: str | Path = "experiments",
    results: str | Path = "results",
) -> Table:
    """Puts the `count` images that come nearest to a photo above that photo: were photos memorised?

    The experiment must have been scored. `photos` is another folder than the one it was scored with.
    """
    folder = Path(results) / experiment
    tally = Tally.load(folder / "scores.json")
    rows = [row for row in tally.images if "nearest" in row]
    if not rows:
        raise ValueError(
            f"The images of {experiment} weren't compared with photos. Run `{score_again(folder)}`."
        )
    photo_folder = Path(photos or (tally.photos or {})["folder"])
    rows = sorted(rows, key=lambda row: -row["nearest photo"])[:count]
    return Table(
        rows=(captions([experiment], root)[0], Heading("nearest photo")),
        columns=tuple(Heading(f"{row['nearest photo']:.2f}", (row["nearest"],)) for row in rows),
        cells=(
            tuple(_cell(experiment, folder / row["file"]) for row in rows),
            tuple(_cell(f"photo {n}", photo_folder / row["nearest"]) for n, row in enumerate(rows)),
        ),
        images_per_cell=1,
    )


def drift_table(
    experiments: Iterable[str],
    *,
    root: str | Path = "experiments",
    results: str | Path = "results",
    images_per_cell: int = 1,
    **options: Any,
) -> Table:
    """Puts images of the same prompt with and without the rare word side by side, as `table` does.

    A model that drifted draws the subject in both. `prompts_without` makes the second prompts from the first.
    """
    names = list(experiments)
    images = [image for name in names for image in load_images(name, results=results)]
    named = {image.prompt: image.prompt_name for image in images}
    rare = rare_words(names, root)
    bare = {prompt: without(prompt, rare) for prompt in named}
    pairs = [(prompt, bare[prompt]) for prompt in named if bare[prompt] != prompt and bare[prompt] in named]
    if not pairs:
        raise ValueError(
            "No prompt has images both with and without the rare word. Generate both: "
            "generate(names, prompts) and generate(names, prompts_without(prompts))."
        )
    columns = PromptSet({named[prompt]: prompt for pair in pairs for prompt in pair})
    return table(names, columns, root=root, results=results, images_per_cell=images_per_cell, **options)


def prompts_without(prompts: PromptSet, words: Iterable[str] = ("sks",)) -> PromptSet:
    """Gives prompts without the rare words, named `<name>_class` so that both can lie in one folder."""
    words = list(words)
    bare = {f"{name}_class": without(prompt, words) for name, prompt in prompts.prompts.items()}
    return PromptSet(bare, prompts.negative_prompt)


def _cell(group: str, path: Path) -> Cell:
    images, hint = ((path,), "") if path.is_file() else ((), f"{path.name} is missing")
    return Cell((group, path.stem), path.name, images, hint)


def _figure(width: float, height: float, panels: int = 1) -> tuple[Any, ...]:
    """A figure that no pyplot keeps, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    return (figure, *axes)


def _groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Experiments with their checkpoints, then their scales in order; the experiment itself is scale 1."""

    def place(name: str) -> tuple[bool, float]:
        detail = name.partition("@")[2]
        found = re.search(r"\d+(\.\d+)?", detail)
        return not detail.startswith("step"), float(found[0]) if found else 1.0

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split("@")[0], []).append(name)
    return {group: sorted(members, key=place) for group, members in groups.items()}


def _lengths(figures: Sequence[Interval]) -> np.ndarray:
    """Lengths below and above the means, as matplotlib wants them."""
    means, lows, highs = np.array(figures).reshape(-1, 3).T
    return np.maximum([means - lows, highs - means], 0)


def _hyperparameters(scores: Scores, root: str | Path) -> pd.DataFrame:
    """One row per whole experiment on this disk, one column per hyperparameter that may change the result."""
    known = {name: values for name in scores.experiments if (values := hyperparameters_of(name, root))}
    rows = pd.DataFrame.from_dict(known, orient="index")
    return rows.drop(columns=NOT_SHOWN - {"method"}, errors="ignore")


def _lines(known: pd.DataFrame, hyperparameter: str) -> dict[str, pd.Series]:
    """What else sets a line apart to its experiments' values of the hyperparameter, in their order."""
    lines: dict[str, pd.Series] = {}
    if hyperparameter in known:
        others = known.drop(columns=hyperparameter).map(str)
        groups = [part for _, part in known.groupby(others.agg(tuple, axis=1), sort=False)]
        parts = [part for part in groups if part[hyperparameter].nunique() > 1]
        firsts = others.loc[[part.index[0] for part in parts]]
        differing = [key for key in firsts if firsts[key].nunique() > 1]
        for part in parts:
            label = ", ".join(_label(key, part[key].iloc[0]) for key in differing)
            lines[label] = part[hyperparameter].sort_values()
    if not lines:
        raise ValueError(
            f"At least two experiments must differ in {hyperparameter!r} alone, got {[*known.index]}."
        )
    return lines


def _label(key: str, value: Any) -> str:
    return METHOD_NAMES[value] if key == "method" else written(key, value).replace("_", " ")
