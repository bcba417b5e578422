"""The scores of experiments as data: records on disk, and DataFrames to sort, pivot and plot."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from sdlab.config import unknown
from sdlab.files import fingerprint, placed, write_json
from sdlab.scores.measures import Interval
from sdlab.tables.figures import Figures, figures
from sdlab.words import Words

PHOTOS = "photos"
MINI_LIKENESS, MINI_SCENE = "likeness to the subject", "scene as in the prompt"
MEASURES = {
    MINI_LIKENESS: "mean probability of the subject's skin, hair colour, hair style and glasses, as the mini "
    "world's reader sees its drawn pictures",
    MINI_SCENE: "share of the images, by the same reader",
    "CLIP-I": "likeness: mean cosine of CLIP's features, images to photos",
    "DINO": "likeness: the same with DINO's features, which tell apart what CLIP calls by one word",
    "face": "likeness of the face: the same with SFace's features; strangers near 0, one person above 0.36",
    "CLIP-T": "fidelity to the prompt: cosine of CLIP's features, images to prompts without the rare word",
    "diversity": "mean distance, 1 - cosine, between the images of one prompt",
    "PRES": "likeness of images of prompts without the rare word; near the base model's is good",
    "nearest photo": "correlation of pixels with the nearest photo, at 32 × 32; 1 is a copy",
}
"""What is measured, in the order of the tables."""

SHARES = (MINI_LIKENESS, MINI_SCENE)  # of 0 to 1
HIGHER_IS_BETTER = (MINI_LIKENESS, "face", "DINO", "CLIP-I", "CLIP-T", MINI_SCENE)
LIKENESS = HIGHER_IS_BETTER[:4]  # the first of them that was measured ranks the experiments


@dataclass(frozen=True)
class Tally:
    """What was measured of one experiment's images, or of the photos among themselves."""

    experiment: str  # its name, `base`, or `photos`
    figures: Mapping[str, Interval]  # by measure, over the images
    images: Sequence[Mapping[str, Any]] = ()  # `file`, `prompt_name`, measures, `nearest` photo
    models: Sequence[Mapping[str, Any]] = ()  # name, source, revision and preprocessing of what measured
    photos: Mapping[str, Any] | None = None  # their `folder` and `number`
    rare_words: Sequence[str] = ()  # left out of the prompts for CLIP-T
    content: str = ""  # fingerprint of the images
    controlled: bool = False  # a control image steered them: they don't say which experiment is best
    settings: Sequence[Mapping[str, Any]] = ()  # of the images of the subject; one if all were made alike
    left_out: int = 0  # images of earlier settings, which weren't measured
    elsewhere: str = ""  # the programs that made the images, if they weren't made here

    @property
    def prompts(self) -> str | None:
        """Names of the prompts whose images were compared with the photos; None where there are none."""
        return ", ".join(dict.fromkeys(row["prompt_name"] for row in self.images if "nearest" in row)) or None

    def save(self, path: str | Path) -> Path:
        """Writes the record as JSON, usually to results/<experiment>/scores.json."""
        return write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Tally:
        """Reads what `save` wrote; raises FileNotFoundError with what to run where there is nothing."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} isn't there. Run `{score_again(path.parent)}`.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
            figures = {name: Interval(*figure) for name, figure in values["figures"].items()}
            return cls(**known | {"figures": figures})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            again = f"Run `{score_again(path.parent)}`, which writes it anew."
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
        measured = (name for name in self.experiments if measure in self[name].figures)
        return {name: self[name].figures[measure] for name in measured}

    def measurements(self) -> dict[str, dict[str, Interval]]:
        """Gives the measures of which more is better, likeness first: experiment to measure to interval."""
        return {
            name: {key: self[name].figures[key] for key in HIGHER_IS_BETTER if key in self[name].figures}
            for name in self.experiments
        }

    @property
    def images(self) -> pd.DataFrame:
        """One row per image: `experiment, file, prompt_name`, its measures, the `nearest` photo's file."""
        rows = [{"experiment": name} | dict(row) for name in self.experiments for row in self[name].images]
        return pd.DataFrame(rows)

    def by_prompt(self, measure: str | None = None) -> Figures:
        """Means of a measure (None: likeness), one row per experiment, one column per prompt that has it."""
        wanted = measure or self.likeness
        if wanted not in self.images:
            raise ValueError(unknown("measure", wanted, self.measures))
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
            tally = self[name]
            compared = [row for row in tally.images if "nearest" in row]
            faces = sum("face" in row for row in compared)
            if tally.rare_words and tally.images and not compared:
                notes.append(words("scores_no_subject", name=name, words=", ".join(tally.rare_words)))
            if tally.elsewhere:
                notes.append(words("scores_elsewhere", name=name, program=tally.elsewhere))
            if tally.left_out:
                notes.append(words("scores_left_out", name=name, count=tally.left_out))
            if "face" in self.measures and faces < len(compared):
                notes.append(words("scores_faces", name=name, faces=faces, images=len(compared)))
        return notes + self._unlike(words)

    def _unlike(self, words: Words) -> list[str]:
        """A note for each setting that isn't the same in all images, with who has which value."""
        rows = [
            {"of": name, "prompt set": tally.prompts, "photos": (tally.photos or {}).get("folder")}
            | dict(one)
            for name, tally in self.tallies.items()
            for one in tally.settings
            if not tally.controlled
        ]
        made, notes = pd.DataFrame(rows), []
        for key in made.columns.drop("of", errors="ignore"):
            known = made.dropna(subset=[key])
            names = known.groupby(known[key].map(str), sort=False)["of"].unique()
            if len(names) > 1:
                values = "; ".join(f"{value} ({', '.join(found)})" for value, found in names.items())
                notes.append(words("scores_unlike", what=words.name(key), values=values))
        return notes

    def _repr_html_(self) -> str:
        notes = (f"<p>{html.escape(note)}</p>" for note in self.notes())
        return "".join([self.table()._repr_html_(), *notes])

    def __repr__(self) -> str:
        return "\n".join([repr(self.table()), *self.notes()])


def score_again(folder: Path, root: str | Path = "experiments") -> str:
    """The command that measures the images of a folder."""
    return placed(f"sdlab score {folder.name}", root=root, results=folder.parent)


def load_scores(
    experiments: Iterable[str], results: str | Path = "results", root: str | Path = "experiments"
) -> Scores:
    """Reads the scores that were taken before, of experiments whose images are still the same.

    A file that can't be read, or of other images, is left out with a warning.
    """
    found = {}
    for name in experiments:
        path = Path(results).expanduser() / name / "scores.json"
        try:
            tally = Tally.load(path)
        except FileNotFoundError:
            continue
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        files = [path.parent / row["file"] for row in tally.images]
        if all(file.is_file() for file in files) and fingerprint(files) == tally.content:
            found[name] = tally
        else:
            warnings.warn(
                f"the scores of {name} are of other images than it has now, and are left out. Take them "
                f"again: {score_again(path.parent, root)}.",
                stacklevel=2,
            )
    return Scores(found)


def measure_name(measure: str, words: Words) -> str:
    """A measure as a reader knows it: `likeness (CLIP-I)`."""
    if measure in LIKENESS[1:]:
        return words("axis_likeness", name=words.name(measure))
    return words("axis_fidelity") if measure == "CLIP-T" else words.name(measure)
