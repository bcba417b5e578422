"""The scores of experiments: what was measured of each image, and its means, as tables and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdlab.files import fingerprint, write_json
from sdlab.scores.intervals import Interval
from sdlab.tables.figures import Figures, figures

PHOTOS = "photos"
MEASURES = {
    "CLIP-I": "likeness: mean cosine of CLIP's features, images to photos",
    "DINO": "likeness: the same with DINO's features, which tell apart what CLIP calls by one word",
    "face": "likeness of the face: the same with a face embedder's features, where there is a face",
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
    """What was measured of one experiment's images, or of the photos themselves.

    Args:
        experiment: Its name, `base`, or `photos`.
        figures: Measure to mean and 95 % interval over the images.
        prompts: Prompt's name to measure to mean.
        images: One per image: `file`, `prompt_name`, its measures, and the `nearest` photo's file.
        models: Name, source, revision and preprocessing of what measured.
        photos: Folder and number of the photos.
        rare_words: What was left out of the prompts for CLIP-T.
        content: Fingerprint of the images.
        controlled: Whether a control image steered them; then they say nothing of which experiment is best.
    """

    experiment: str
    figures: Mapping[str, Interval]
    prompts: Mapping[str, Mapping[str, float]]
    images: tuple[Mapping[str, Any], ...] = ()
    models: tuple[Mapping[str, Any], ...] = ()
    photos: Mapping[str, Any] | None = None
    rare_words: tuple[str, ...] = ()
    content: str = ""
    controlled: bool = False

    def save(self, path: str | Path) -> Path:
        """Writes the tally as JSON.

        Args:
            path: The file, usually results/<experiment>/scores.json.

        Returns:
            The path.
        """
        return write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Tally:
        """Reads what `save` wrote.

        Args:
            path: The file.

        Returns:
            The tally.

        Raises:
            FileNotFoundError: It isn't there; run `sdlab score`.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} isn't there. Run `sdlab score {Path(path).parent.name}`."
            ) from None
        values["figures"] = {name: tuple(figure) for name, figure in values["figures"].items()}
        for name in ("images", "models", "rare_words"):
            values[name] = tuple(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Scores:
    """The tallies of several experiments; a notebook shows them as a table.

    Args:
        tallies: By experiment; the row `photos` is what a perfect image could reach.
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
        measured = {name for one in self.experiments for name in self.tallies[one].figures}
        return next((name for name in LIKENESS if name in measured), "CLIP-I")

    def of(self, measure: str) -> dict[str, Interval]:
        """Gives one measure of all experiments that have it.

        Args:
            measure: A key of `MEASURES`.

        Returns:
            Experiment to mean and interval.
        """
        return {
            name: self.tallies[name].figures[measure]
            for name in self.experiments
            if measure in self.tallies[name].figures
        }

    def measurements(self) -> dict[str, dict[str, Interval]]:
        """Gives what a table or report takes: the measures of which more is better, likeness first.

        Returns:
            Experiment to measure to mean and interval.
        """
        return {
            name: {key: one.figures[key] for key in HIGHER_IS_BETTER if key in one.figures}
            for name, one in self.tallies.items()
            if name != PHOTOS
        }

    def note(self) -> str:
        """Says how the measures of `measurements` were made.

        Returns:
            One or two sentences; empty where nothing was measured.
        """
        tally = next((self.tallies[name] for name in self.experiments), None)
        if tally is None:
            return ""
        said = [f"{key}: {MEASURES[key]}." for key in HIGHER_IS_BETTER if key in tally.figures]
        models = ", ".join(f"{one['name']} is {one['source']}" for one in tally.models if "revision" in one)
        return " ".join([*said, f"{models}. In brackets: 95 % interval over the images, by the bootstrap."])

    def table(self, language: str = "en") -> Figures:
        """Gives all measures as rows of figures.

        Args:
            language: "en" or "ru".

        Returns:
            One row per experiment.
        """
        shown = [name for name in MEASURES if any(name in one.figures for one in self.tallies.values())]
        rows = [
            {"experiment": name} | {key: one.figures.get(key) for key in shown}
            for name, one in self.tallies.items()
        ]
        return figures(rows, language=language, decimals=3)

    def by_prompt(self, measure: str | None = None) -> Figures:
        """Gives one measure of each prompt: which ones go wrong?

        Args:
            measure: A key of `MEASURES`; None takes likeness.

        Returns:
            One row per experiment, one column per prompt that has the measure.
        """
        wanted = measure or self.likeness
        rows = [
            {"experiment": name}
            | {prompt: of[wanted] for prompt, of in self.tallies[name].prompts.items() if wanted in of}
            for name in self.experiments
        ]
        return figures(rows, decimals=3)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())


def load_scores(experiments: Iterable[str], results: str | Path = "results") -> Scores:
    """Reads the scores that were taken before.

    Args:
        experiments: Names; those whose images were never scored, or are others by now, are left out.
        results: The folder of the images.

    Returns:
        The scores.
    """
    found = {}
    for name in experiments:
        path = Path(results) / name / "scores.json"
        if not path.is_file():
            continue
        tally = Tally.load(path)
        files = [path.parent / row["file"] for row in tally.images]
        if all(file.is_file() for file in files) and fingerprint(files) == tally.content:
            found[name] = tally
    return Scores(found)
