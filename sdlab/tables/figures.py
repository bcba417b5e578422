"""The figures of experiments as a table: what differs, what training took, what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab.config import number
from sdlab.experiment import Experiment
from sdlab.tables.captions import BASE, METHOD_NAMES, NOT_SHOWN, hyperparameters_of
from sdlab.templates import code, markdown_text, render
from sdlab.words import Words


@dataclass(frozen=True)
class Figures:
    """One row of figures per experiment; a notebook shows it as a table.

    Args:
        rows: column to value, the same columns in every row.
    """

    rows: tuple[dict[str, str], ...]

    @property
    def columns(self) -> list[str]:
        """Columns that say something: filled in any row."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in names if any(row.get(name) for row in self.rows)]

    def html(self) -> str:
        """The figures as an HTML table."""
        return render("figures.html", figures=self)

    def _repr_html_(self) -> str:
        return self.html()

    def text(self) -> str:
        """The figures as columns for a terminal."""
        rows = [dict(zip(self.columns, self.columns, strict=True)), *self.rows]
        widths = {name: max(len(row.get(name, "")) for row in rows) for name in self.columns}
        lines = ("  ".join(row.get(name, "").ljust(width) for name, width in widths.items()) for row in rows)
        return "\n".join(line.rstrip() for line in lines)

    def markdown(self) -> str:
        """The figures as a Markdown table."""
        if not self.rows:
            return ""
        head = [markdown_text(name.replace("_", " ")) for name in self.columns]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(self.columns) + "|"]
        for row in self.rows:
            cells = [markdown_text(row.get(name, "")) for name in self.columns]
            if " " not in (name := row.get(self.columns[0], "")):
                cells[0] = code(name)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def summary(
    experiments: Iterable[str | Experiment],
    *,
    root: str | Path = "experiments",
    measurements: Mapping[str, Mapping[str, Any]] | None = None,
    language: str = "en",
) -> Figures:
    """What differs between experiments, what their training took, and what was measured.

    Args:
        experiments: names or experiments; "base" and combinations such as "lora@0.5" have measurements only.
        root: folder of the experiments.
        measurements: experiment to the name and value of each measurement; a value is a number, or a
            mean with the ends of its interval.
        language: "en" or "ru".

    Returns:
        One row per experiment; the method is named only where there are several.

    Taught in: notebooks/02
    """
    found = {
        entry.name if isinstance(entry, Experiment) else entry: entry
        if isinstance(entry, Experiment)
        else _experiment(entry, root)
        for entry in experiments
    }
    known = [hyperparameters_of(one.name, one.root) if one else {} for one in found.values()]
    differing = _differing([values for values in known if values])
    say, measured = Words(language), measurements or {}
    methods = {values["method"] for values in known if values}
    rows = []
    for (shown, one), values in zip(found.items(), known, strict=True):
        row = {"experiment": shown}
        if len(methods) > 1:
            row["method"] = METHOD_NAMES.get(values.get("method", ""), "")
        row |= {name: _short(values.get(name), say) for name in differing}
        row |= _training_figures(one, say) if one else {}
        if row.get("steps") == row.get("max_train_steps"):
            row.pop("max_train_steps", None)  # it did all of them: the column `steps` says so
        rows.append(row | _measured_figures(measured.get(shown, {}), say))
    return Figures(_aligned(rows, say))


def measured(
    experiments: Iterable[str], measurements: Mapping[str, Mapping[str, Any]], *, language: str = "en"
) -> Figures:
    """What was measured of some experiments' images, and nothing else.

    Args:
        experiments: names; one without measurements is left out.
        measurements: as `summary` takes them.
        language: "en" or "ru".

    Returns:
        One row per experiment.
    """
    say = Words(language)
    rows = [
        {"experiment": name} | _measured_figures(measurements[name], say)
        for name in experiments
        if measurements.get(name)
    ]
    return Figures(_aligned(rows, say))


def measurement_text(value: Any, language: str = "en") -> str:
    """A measured value in words: `0.83`, or `0.83 (0.79 to 0.86)` with its interval."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        mean, low, high = (measurement_text(float(part)) for part in value)
        return Words(language)("interval", mean=mean, low=low, high=high)
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if value == 0 or 0.1 <= abs(value) < 100 else f"{value:.2g}"


def _measured_figures(values: Mapping[str, Any], say: Words) -> dict[str, str]:
    return {name: measurement_text(value, say.language) for name, value in values.items()}


def _aligned(rows: Sequence[dict[str, str]], say: Words) -> tuple[dict[str, str], ...]:
    """The same columns in every row, in the order of the fullest, under their names in the language."""
    columns = dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row)
    return tuple({say.name(name): row.get(name, "") for name in columns} for row in rows)


def _experiment(name: str, root: str | Path) -> Experiment | None:
    return None if name == BASE or "@" in name else Experiment(name, Path(root))


def _differing(known: list[dict[str, Any]]) -> list[str]:
    """Hyperparameters that aren't the same in all that have them; of one experiment, rate and rank."""
    names = dict.fromkeys(name for values in known for name in values if name not in NOT_SHOWN)
    values = {name: {str(one[name]) for one in known if name in one} for name in names}
    return [
        name
        for name in names
        if len(values[name]) > 1 or (len(known) == 1 and name in ("learning_rate", "rank"))
    ]


_RECORDED: dict[str, tuple[str, Callable[[Any, Words], str]]] = {
    "steps/s": ("steps_per_second", lambda value, say: f"{value:.3g}"),
    "time": ("seconds", lambda value, say: duration(value, say.language)),
    "peak memory": ("peak_memory_gb", lambda value, say: say("gigabytes", value=f"{value:.3g}")),
    "trained weights": ("trainable_parameters", lambda value, say: say.count(value)),
    "share": ("trainable_share", lambda value, say: f"{100 * value:.3g} %"),
    "size": ("size_mb", lambda value, say: say("megabytes", value=f"{value:.3g}")),
    "loss at the end": ("final_loss", lambda value, say: f"{value:.3f}"),
    "held-out loss": ("final_validation_loss", lambda value, say: f"{value:.4f}"),
}


def _training_figures(experiment: Experiment, say: Words) -> dict[str, str]:
    record = experiment.record
    status = "" if record.get("status") == "finished" else say.name(experiment.status)
    if experiment.status == "failed":
        status += f": {record.get('message', '')}"
    return {
        "status": status,
        "steps": str(record.get("steps", "")),
        **{
            name: text(record[key], say)
            for name, (key, text) in _RECORDED.items()
            if record.get(key) is not None
        },
    }


def duration(seconds: float, language: str = "en") -> str:
    """A time as people say it: `48 s`, `6 min 5 s`, `2 h 3 min`."""
    say, whole = Words(language), round(seconds)
    if whole < 60:
        return say("seconds", s=f"{seconds:.2g}" if seconds < 9.5 else whole)
    if whole < 3600:
        return (
            say("minutes_seconds", m=whole // 60, s=whole % 60)
            if whole % 60
            else say("minutes", m=whole // 60)
        )
    return say("hours_minutes", h=whole // 3600, m=whole % 3600 // 60)


def _short(value: Any, say: Words) -> str:
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    return "" if value is None else number(value)
