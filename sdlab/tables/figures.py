"""Hyperparameters and figures of experiments: as a reader writes them, and as DataFrames to sort and plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from sdlab.config import BESIDE_TRAINING, DreamBooth, LoRA, number
from sdlab.experiment import Experiment, several
from sdlab.images import BASE
from sdlab.templates import code, markdown_text, render
from sdlab.words import Words

METHOD_NAMES = {"dreambooth": "DreamBooth", "lora": "LoRA"}
NOT_SHOWN = BESIDE_TRAINING | {"instance_data_dir", "class_data_dir", "method"}
ENDS = (" low", " high")  # of a measurement's interval, each a column beside its mean
HYPERPARAMETERS = {field.name for method in (DreamBooth, LoRA) for field in fields(method)}


class Figures(pd.DataFrame):
    """A DataFrame that notebook, Markdown and terminal show with units and intervals, in its language."""

    @property
    def _constructor(self) -> type[Figures]:
        return Figures

    def written(self) -> pd.DataFrame:
        """The same as texts: `1 min 5 s`, `0.83 (0.79 to 0.86)`; the index is the first column."""
        words, decimals = Words(self.attrs.get("language", "en")), self.attrs.get("decimals")
        columns = {self.index.name or "": [words.name(str(entry)) for entry in self.index]}
        ends = {f"{name}{end}" for name in self.columns for end in ENDS}
        for name in (str(name) for name in self.columns if name not in ends):
            parts = [self[column] for column in (name, *(f"{name}{end}" for end in ENDS)) if column in self]
            columns[name] = [
                _written(name, *values, words=words, decimals=decimals) for values in zip(*parts, strict=True)
            ]
        return pd.DataFrame({words.name(name).replace("_", " "): texts for name, texts in columns.items()})

    def _repr_html_(self) -> str:
        written = self.written()
        return render("figures.html", head=list(written.columns), rows=written.to_numpy().tolist())

    def __repr__(self) -> str:
        return str(self.written().to_string(index=False))

    def markdown(self) -> str:
        """The figures as a Markdown table."""
        written, name = self.written(), code if self.index.name == "experiment" else markdown_text
        rows = [[*map(markdown_text, written.columns)], ["---"] * written.shape[1]]
        for first, *others in written.itertuples(index=False, name=None):
            rows.append([name(first), *map(markdown_text, others)])
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def figures(
    rows: Iterable[Mapping[str, Any]], *, language: str = "en", decimals: int | None = None
) -> Figures:
    """Rows as a frame: the first key is the index, a mean with its interval's ends takes three columns.

    Args:
        decimals: of measured values; None takes as many as tell two experiments apart, about two digits.
    """
    flat = [_flat(row) for row in rows]
    names = dict.fromkeys(name for row in sorted(flat, key=len, reverse=True) for name in row)
    frame = pd.DataFrame(flat, columns=list(names)).dropna(axis="columns", how="all")
    made = Figures(frame.set_index(next(iter(names))) if flat else frame)
    made.attrs |= {"language": language, "decimals": decimals}
    return made


def summary(
    experiments: str | Experiment | Iterable[str | Experiment],
    *,
    root: str | Path = "experiments",
    measurements: Mapping[str, Mapping[str, Any]] | None = None,
    language: str = "en",
) -> Figures:
    """What differs between experiments, what their training took, and what was measured.

    Args:
        experiments: "base" and combinations such as "lora@0.5" have measurements only.
        measurements: experiment to the name and value of each; a number, or a mean with its interval's ends.

    Returns:
        A row for each experiment: `time` in seconds, `peak memory` in GB, `size` in MB. The method is named
        only where there are several.

    Taught in: notebooks/02
    """
    measured = measurements or {}
    entries = [_experiment(one, root, measured) for one in several(experiments)]
    known = [hyperparameters_of(one.name, one.root) if isinstance(one, Experiment) else {} for one in entries]
    trained, words = [values for values in known if values], Words(language)
    shown = differing(trained) if len(trained) > 1 else ["learning_rate", "rank"]
    mixed = len({values["method"] for values in trained}) > 1
    rows = []
    for one, values in zip(entries, known, strict=True):
        name = one.name if isinstance(one, Experiment) else one
        row: dict[str, Any] = {"experiment": name}
        if mixed:
            row["method"] = METHOD_NAMES.get(values.get("method", ""))
        row |= {key: values.get(key) for key in shown}
        if isinstance(one, Experiment):
            row |= _training_figures(one, words)
        if row.get("steps") == row.get("max_train_steps"):
            row.pop("max_train_steps", None)  # it did all of them: the column `steps` says so
        rows.append(row | dict(measured.get(name, {})))
    return figures(rows, language=language)


def measurement_text(value: Any, language: str = "en", decimals: int | None = None) -> str:
    """A measured value in words: `0.83`, or `0.83 (0.79 to 0.86)` with its interval."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        mean, low, high = (measurement_text(float(part), language, decimals) for part in value)
        return mean if low == high else Words(language)("interval", mean=mean, low=low, high=high)
    if not isinstance(value, float):
        return str(value)
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.2f}" if value == 0 or 0.1 <= abs(value) < 100 else f"{value:.2g}"


def duration(seconds: float, language: str = "en") -> str:
    """A time as people say it: `48 s`, `6 min 5 s`, `2 h 3 min`."""
    words, whole = Words(language), round(seconds)
    if whole < 60:
        return words("seconds", s=f"{seconds:.2g}" if seconds < 9.5 else whole)
    if whole >= 3600:
        return words("hours_minutes", h=whole // 3600, m=whole % 3600 // 60)
    return words("minutes_seconds" if whole % 60 else "minutes", m=whole // 60, s=whole % 60)


def size_text(megabytes: float, words: Words) -> str:
    """A file's size: `3.2 MB`, `4.27 GB`."""
    if megabytes < 1000:
        return words("megabytes", value=f"{megabytes:.3g}")
    return words("gigabytes", value=f"{megabytes / 1000:.3g}")


# column: the record's key, and how it is written
RECORDED: dict[str, tuple[str, Callable[[Any, Words], str]]] = {
    "steps": ("steps", lambda value, words: f"{value:.0f}"),
    "steps/s": ("steps_per_second", lambda value, words: f"{value:.3g}"),
    "time": ("seconds", lambda value, words: duration(value, words.language)),
    "peak memory": ("peak_memory_gb", lambda value, words: words("gigabytes", value=f"{value:.3g}")),
    "trained weights": ("trainable_parameters", lambda value, words: words.count(value)),
    "share": ("trainable_share", lambda value, words: f"{100 * value:.3g} %"),
    "size": ("size_mb", size_text),
    "loss at the end": ("final_loss", lambda value, words: f"{value:.3f}"),
    "held-out loss": ("final_validation_loss", lambda value, words: f"{value:.4f}"),
}


def _written(name: str, *interval: Any, words: Words, decimals: int | None) -> str:
    """One value, or a mean with its interval, as a reader writes it; a missing one is empty."""
    value = interval[0]
    if pd.isna(value):
        return ""
    if name in RECORDED and isinstance(value, int | float):
        return RECORDED[name][1](value, words)
    if isinstance(value, bool):
        return words("yes" if value else "no")
    if name in HYPERPARAMETERS:
        return number(value)
    whole = len(interval) > 1 and not pd.isna(interval[1])
    return measurement_text(interval if whole else value, words.language, decimals)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with a column for the mean and each end of an interval."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            flat |= dict(zip((name, *(f"{name}{end}" for end in ENDS)), value, strict=True))
        else:
            flat[name] = value
    return flat


def _experiment(one: str | Experiment, root: str | Path, measured: Iterable[str]) -> Experiment | str:
    """The experiment, or the name alone of what has measurements only."""
    if isinstance(one, Experiment) or one == BASE or "@" in one:
        return one
    return one if one in measured and not hyperparameters_of(one, root) else Experiment.load(one, root)


def _training_figures(experiment: Experiment, words: Words) -> dict[str, Any]:
    record = experiment.record
    row = {name: record.get(key) for name, (key, _) in RECORDED.items()}
    if record.get("status") == "finished":
        return row
    reason = f": {record.get('message', '')}" if experiment.status == "failed" else ""
    return {"status": words.name(experiment.status) + reason} | row


def differing(known: Iterable[Mapping[str, Any]]) -> list[str]:
    """Hyperparameters that aren't the same in all that have them."""
    values: dict[str, set[str]] = {}
    for name, value in (item for one in known for item in one.items()):
        values.setdefault(name, set()).add(str(value))
    return [name for name, found in values.items() if len(found) > 1 and name not in NOT_SHOWN]


def hyperparameters_of(name: str, root: str | Path = "experiments") -> dict[str, Any]:
    """Method and hyperparameters of an experiment, or nothing where it isn't on this disk."""
    folder = Path(root).expanduser()
    if not (folder / name / "experiment.json").is_file():
        return {}
    values = Experiment(name, folder).hyperparameters.as_dict()
    base = "pretrained_model_name_or_path"
    return values | {base: plain_place(values[base])}


def plain_place(text: str) -> str:
    """A folder's or model's name without the path on this machine."""
    return Path(text).name if Path(text).is_absolute() or text.startswith("~") else text


def written(key: str, value: Any, language: str = "en") -> str:
    """One hyperparameter as a reader writes it: `learning_rate 2e-4`, `no prior preservation`."""
    if isinstance(value, bool):
        words = key.removeprefix("with_").replace("_", " ")
        return words if value else Words(language)("without", what=words)
    return f"{key} {number(value)}"
