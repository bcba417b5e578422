"""The scores of experiments as data: records on disk, and DataFrames to sort, pivot and plot."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.files import fingerprint, write_json
from sdlab.scores.measures import Interval
from sdlab.tables.figures import Figures, figures
from sdlab.words import Words

if TYPE_CHECKING:
    from pandas import DataFrame

PHOTOS = "photos"
MEASURES = {
    "CLIP-I": "likeness: mean cosine of CLIP's features, images to photos",
    "DINO": "likeness: the same with DINO's features, which tell apart what CLIP calls by one word",
    "face": "likeness of the face: the same with SFace's features; strangers near 0, one person above 0.36",
    "CLIP-T": "fidelity to the prompt: cosine of CLIP's features, images to prompts without the rare word",
    "diversity": "mean distance, 1 - cosine, between the images of one prompt",
    "PRES": "likeness of images of prompts without the rare word; near the base model's is good",
    "nearest photo": "correlation of pixels with the nearest photo, at 32 × 32; 1 is a copy",
}
"""What is measured, in the order of the tables."""

HIGHER_IS_BETTER = ("face", "DINO", "CLIP-I", "CLIP-T")
LIKENESS = HIGHER_IS_BETTER[:3]  # the first of them that was measured ranks the experiments


@dataclass(frozen=True)
class Tally:
    """What was measured of one experiment's images, or of the photos among themselves.

    Args:
        experiment: Its name, `base`, or `photos`.
        figures: Measure to mean and 95 % interval over the images.
        images: One row per image: `file`, `prompt_name`, its measures, and the `nearest` photo's file.
        models: Name, source, revision and preprocessing of what measured.
        photos: Folder and number of the photos.
        rare_words: What was left out of the prompts for CLIP-T.
        content: Fingerprint of the images.
        settings: What the images of the subject were made with, such as guidance and size; one if all alike.
        left_out: How many images of earlier settings weren't measured.
        controlled: Whether a control image steered them; then they don't say which experiment is best.
    """

    experiment: str
    figures: Mapping[str, Interval]
    images: tuple[Mapping[str, Any], ...] = ()
    models: tuple[Mapping[str, Any], ...] = ()
    photos: Mapping[str, Any] | None = None
    rare_words: tuple[str, ...] = ()
    content: str = ""
    controlled: bool = False
    settings: tuple[Mapping[str, Any], ...] = ()
    left_out: int = 0

    def save(self, path: str | Path) -> Path:
        """Writes the record as JSON, usually to results/<experiment>/scores.json."""
        return write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Tally:
        """Reads what `save` wrote; raises FileNotFoundError with what to run where there is nothing."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} isn't there. Run `sdlab score {path.parent.name}`.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["figures"] = {name: Interval(*figure) for name, figure in values["figures"].items()}
            for name in {"images", "models", "rare_words", "settings"} & set(values):
                values[name] = tuple(values[name])
            return cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            again = f"Run `sdlab score {path.parent.name}`, which writes it anew."
            raise ValueError(f"{path} can't be read as scores ({error}). {again}") from None


@dataclass(frozen=True)
class Scores:
    """The scores of several experiments; a notebook shows them as a table.

    `table` and `images` are pandas DataFrames, one row per experiment and one per image.

    Args:
        tallies: By experiment; `photos` is what a perfect image could reach.
    """

    tallies: Mapping[str, Tally]

    def __getitem__(self, experiment: str) -> Tally:
        return self.tallies[experiment]

    @property
    def experiments(self) -> list[str]:
        """Names without `photos`."""
        return [name for name in self.tallies if name != PHOTOS]

    @property
    def eligible(self) -> list[str]:
        """Names that a recommendation may choose from: neither the base nor images made with control."""
        known = self.of(self.likeness)
        return [name for name in known if name != "base" and not self[name].controlled]

    @property
    def likeness(self) -> str:
        """The measure of likeness that ranks: the face's where there is one, else DINO, else CLIP-I."""
        measured = {measure for name in self.experiments for measure in self[name].figures}
        return next((name for name in LIKENESS if name in measured), "CLIP-I")

    @property
    def measures(self) -> list[str]:
        """What was measured of any experiment or of the photos, in the order of the tables."""
        found = [measure for one in self.tallies.values() for measure in one.figures]
        return [name for name in dict.fromkeys([*MEASURES, *found]) if name in found]

    def of(self, measure: str) -> dict[str, Interval]:
        """Gives one measure of all experiments that have it."""
        known = ((name, self[name].figures.get(measure)) for name in self.experiments)
        return {name: figure for name, figure in known if figure is not None}

    def measurements(self) -> dict[str, dict[str, Interval]]:
        """Gives the measures of which more is better, likeness first: experiment to measure to interval."""
        return {
            name: {key: self[name].figures[key] for key in HIGHER_IS_BETTER if key in self[name].figures}
            for name in self.experiments
        }

    @property
    def images(self) -> DataFrame:
        """One row per image: `experiment, file, prompt_name`, its measures, the `nearest` photo's file."""
        import pandas as pd

        rows = [{"experiment": name} | dict(row) for name in self.experiments for row in self[name].images]
        return pd.DataFrame(rows)

    def by_prompt(self, measure: str | None = None) -> Figures:
        """Means of a measure (None: likeness), one row per experiment, one column per prompt that has it."""
        wanted = measure or self.likeness
        means = self.images.pivot_table(wanted, "experiment", "prompt_name", sort=False)
        return figures(means.reset_index().to_dict("records"), decimals=3)

    def table(self, language: str = "en") -> Figures:
        """One row per experiment, a mean and the ends of its interval (`CLIP-I low`) for each measure."""
        rows = [
            {"experiment": name} | {measure: one.figures.get(measure) for measure in self.measures}
            for name, one in self.tallies.items()
        ]
        return figures(rows, language=language, decimals=3)

    def notes(self, language: str = "en") -> list[str]:
        """What to know before comparing: images that weren't made alike, and why a figure is missing."""
        words, notes = Words(language), []
        for name in self.experiments:
            if self[name].rare_words and self[name].images and "nearest photo" not in self[name].figures:
                notes.append(words("scores_no_subject", name=name, words=", ".join(self[name].rare_words)))
            if self[name].left_out:
                notes.append(words("scores_left_out", name=name, count=self[name].left_out))
            faces = sum("face" in row for row in self[name].images)
            if (
                faces < (seen := sum("nearest" in row for row in self[name].images))
                and "face" in self.measures
            ):
                notes.append(words("scores_faces", name=name, faces=faces, images=seen))
        made = {
            name: one.settings for name, one in self.tallies.items() if one.settings and not one.controlled
        }
        for key in dict.fromkeys(key for settings in made.values() for one in settings for key in one):
            found = {name: {str(one.get(key)): None for one in settings} for name, settings in made.items()}
            if len({value for values in found.values() for value in values}) > 1:
                said = "; ".join(f"{name}: {', '.join(values)}" for name, values in found.items())
                notes.append(words("scores_unlike", what=words.name(key), values=said))
        return notes

    def _repr_html_(self) -> str:
        notes = (f"<p>{html.escape(note)}</p>" for note in self.notes())
        return "".join([self.table()._repr_html_(), *notes])

    def __repr__(self) -> str:
        return "\n".join([repr(self.table()), *self.notes()])


def load_scores(experiments: Iterable[str], results: str | Path = "results") -> Scores:
    """Reads the scores that were taken before, of experiments whose images are still the same.

    A file that can't be read is left out with a warning.
    """
    found = {}
    for name in experiments:
        path = Path(results) / name / "scores.json"
        if not path.is_file():
            continue
        try:
            tally = Tally.load(path)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        files = [path.parent / row["file"] for row in tally.images]
        if all(file.is_file() for file in files) and fingerprint(files) == tally.content:
            found[name] = tally
    return Scores(found)


def measure_name(measure: str, words: Words) -> str:
    """A measure as a reader knows it: `likeness (CLIP-I)`."""
    if measure in LIKENESS:
        return words("axis_likeness", name=words.name(measure))
    return words("axis_fidelity") if measure == "CLIP-T" else words.name(measure)
