"""What a report is made from, as it lies on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab.experiment import Experiment, find
from sdlab.images import ImageRecord, load_images
from sdlab.photos import Dataset
from sdlab.photos.dataset import RECORD_FILE
from sdlab.prompts import PromptSet
from sdlab.reports.conclusion import Measurements, highest
from sdlab.scores import Scores, as_faithful, load_scores, recommend
from sdlab.tables import Figures, Table, measured, prompts_of, summary, table
from sdlab.tables.captions import BASE
from sdlab.words import Words

METHODS = ("dreambooth", "lora")


@dataclass(frozen=True)
class Material:
    """Everything that the sections are made from.

    Args:
        experiments: in the order of the report, all in one folder.
        dataset: the photos; None where they aren't on this disk.
        measurements: experiment, or folder of controlled images, to what was measured.
        scores: what `sdlab score` left of experiments; empty where the measurements come from elsewhere.
        drift: what `sdlab score` says of the class.
        best: method to the experiment that stands for it in the comparison, and "why".
        controlled: images made with control, of these experiments and the base model.
        note: how the measurements were made.
    """

    experiments: tuple[Experiment, ...]
    prompts: PromptSet
    results: Path
    dataset: Dataset | None
    measurements: Measurements
    scores: Scores
    best: Mapping[str, str]
    controlled: tuple[ImageRecord, ...]
    images_per_cell: int
    note: str
    words: Words

    @property
    def root(self) -> Path:
        """Folder of the experiments."""
        return self.experiments[0].root

    @property
    def images(self) -> list[ImageRecord]:
        """All images of the experiments and the base model, without control."""
        names = [BASE, *(one.name for one in self.experiments)]
        return [image for name in names for image in load_images(name, results=self.results)]

    def of(self, method: str) -> list[Experiment]:
        """The experiments of a method."""
        return [one for one in self.experiments if one.hyperparameters.method == method]

    def training(self, experiments: Sequence[Experiment]) -> Figures:
        """What differs between them, and what their training took."""
        return summary(experiments, root=self.root, language=self.words.language)

    def measured(self, experiments: Sequence[Experiment]) -> Figures | None:
        """What was measured of their images, the base model's first; None where nothing was."""
        names = [one.name for one in experiments]
        if not any(self.measurements.get(name) for name in names):
            return None
        return measured([BASE, *names], self.measurements, language=self.words.language)

    def table(self, experiments: Sequence[Experiment], **options: Any) -> Table:
        """Their images beside the base model's."""
        names = [BASE, *(one.name for one in experiments)]
        options = {"images_per_cell": self.images_per_cell, "language": self.words.language, **options}
        return table(names, self.prompts, results=self.results, root=self.root, **options)


def gather(
    experiments: Iterable[str | Experiment] | None,
    prompts: PromptSet | None,
    *,
    results: Path,
    root: Path,
    dataset: Path,
    measurements: Measurements | None,
    best: Mapping[str, str] | None,
    images_per_cell: int,
    note: str,
    words: Words,
) -> Material:
    """Reads what is on disk; the arguments are those of `report`."""
    chosen = _experiments(experiments, root)
    names = [one.name for one in chosen]
    controlled = _controlled([BASE, *names], results)
    folders = dict.fromkeys(image.path.parent.name for image in controlled)
    scores = load_scores([BASE, *names, *folders] if measurements is None else [], results)
    known = scores.measurements() if measurements is None else measurements
    scores = Scores({name: tally for name, tally in scores.tallies.items() if name not in folders})
    return Material(
        experiments=tuple(chosen),
        prompts=prompts or prompts_of(names, results=results),
        results=results,
        dataset=Dataset.load(dataset) if (dataset / RECORD_FILE).is_file() else None,
        measurements=known,
        scores=scores,
        best=best or _best(chosen, known, scores, words),
        controlled=tuple(controlled),
        images_per_cell=images_per_cell,
        note=note,
        words=words,
    )


def _experiments(experiments: Iterable[str | Experiment] | None, root: Path) -> list[Experiment]:
    if experiments is None:
        chosen = find(root)
    else:
        chosen = [
            e if isinstance(e, Experiment) else Experiment.load(e, root) for e in experiments if e != BASE
        ]
    if not chosen:
        raise ValueError(
            f"there are no experiments in {root}. Train some: `sdlab train dreambooth --name ...`."
        )
    folders = {one.root.resolve() for one in chosen}
    if len(folders) > 1 or len({one.name for one in chosen}) < len(chosen):
        raise ValueError(
            "the experiments of a report must lie in one folder, each named once, because their images do "
            f"too; got {', '.join(one.path.as_posix() for one in chosen)}. Rename those of the same name, "
            "folder and images, or make a report of each folder with --root, --results and --out."
        )
    return chosen


def _controlled(names: Sequence[str], results: Path) -> list[ImageRecord]:
    """Images that were made with control, by experiment in the order of the names, then by folder."""
    folders = sorted(path.parent.name for path in results.glob("*/images.json"))
    images = [image for folder in folders for image in load_images(folder, results=results) if image.control]
    return sorted(
        (image for image in images if image.experiment in names), key=lambda i: names.index(i.experiment)
    )


def _best(
    experiments: Sequence[Experiment], measurements: Measurements, scores: Scores, words: Words
) -> dict[str, str]:
    """The best of each method by `recommend`, else by the first measurement, or the only ones there are."""
    groups = {m: [e for e in experiments if e.hyperparameters.method == m] for m in METHODS}
    chosen, why = {m: _recommended(group, scores) for m, group in groups.items()}, words("compared_rule")
    if strays := [name for name in chosen.values() if name and not as_faithful(scores.of("CLIP-T"), name)]:
        why += " " + words("compared_strays", names=", ".join(strays))
    first = next((name for values in measurements.values() for name in values), None)
    if first and not all(chosen.values()):
        best = {method: highest(first, group, measurements) for method, group in groups.items()}
        chosen = {method: one.name if one else "" for method, one in best.items()}
        why = words("compared_best", name=words.name(first))
    if not all(chosen.values()) and all(len(group) == 1 for group in groups.values()):
        chosen, why = {method: group[0].name for method, group in groups.items()}, ""
    return {**chosen, "why": why} if all(chosen.values()) else {}


def _recommended(experiments: Sequence[Experiment], scores: Scores) -> str:
    """The best by the rule of the scores; none where they weren't taken."""
    likeness = scores.of(scores.likeness)
    names = [one.name for one in experiments if one.name in likeness]
    if not names or not scores.of("CLIP-T"):
        return ""
    return recommend(Scores({name: scores[name] for name in [BASE, *names] if name in scores.tallies})).name
