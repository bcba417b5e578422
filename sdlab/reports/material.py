"""What a report is made from, as it lies on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sdlab.experiment import Experiment, find
from sdlab.images import ImageRecord, Setting, load_images
from sdlab.photos import Dataset
from sdlab.photos.dataset import RECORD_FILE
from sdlab.prompts import PromptSet
from sdlab.reports.conclusion import Measure, Measurements
from sdlab.sampling import image_files
from sdlab.scores import Scores, as_faithful, load_scores, recommend
from sdlab.subject import Subject
from sdlab.tables import Figures, Table, summary
from sdlab.tables.building import choose_setting, lay_out
from sdlab.tables.captions import BASE, METHOD_NAMES
from sdlab.words import Words


@dataclass(frozen=True)
class Material:
    """Everything that the sections are made from, read when it is asked for.

    Args:
        experiments: in the order of the report, all in one folder.
        elsewhere: folders of images that no experiment here made.
        photos, given, pair, nth_setting: `dataset`, `measurements`, `best` and `setting` of `report`.
    """

    experiments: Sequence[Experiment]
    elsewhere: Sequence[str]
    prompts: PromptSet
    results: Path
    photos: Path
    given: Measurements | None
    pair: Mapping[str, str] | None
    images_per_cell: int
    nth_setting: int
    note: str
    words: Words

    @property
    def root(self) -> Path:
        """Folder of the experiments."""
        return self.experiments[0].root

    @property
    def names(self) -> list[str]:
        """The base model and the experiments."""
        return [BASE, *(one.name for one in self.experiments)]

    @property
    def subject(self) -> Subject:
        """What the first experiment was trained on."""
        chosen = self.experiments[0].hyperparameters
        return Subject.of(chosen.instance_prompt, chosen.class_prompt)

    @cached_property
    def dataset(self) -> Dataset | None:
        """The photos; None where they aren't on this disk."""
        return Dataset.load(self.photos) if (self.photos / RECORD_FILE).is_file() else None

    @cached_property
    def _recorded(self) -> list[ImageRecord]:
        return [image for name in self.names for image in load_images(name, results=self.results)]

    @cached_property
    def setting(self) -> Setting | None:
        """What the shown images were made with; None where they have no records."""
        return choose_setting(self._recorded, self.prompts, self.nth_setting)[0]

    @property
    def left_out(self) -> int:
        """How many images have another setting."""
        return choose_setting(self._recorded, self.prompts, self.nth_setting)[1]

    @property
    def images(self) -> list[ImageRecord]:
        """The records of the shown images, the base model's first."""
        shown = [one for one in self._recorded if one.setting == self.setting]
        return [one for one in shown if one.prompt_name in self.prompts.prompts]

    @cached_property
    def controlled(self) -> list[ImageRecord]:
        """Images made with control, by experiment in the order of the report, then by folder."""
        folders = sorted(path.parent.name for path in self.results.glob("*/images.json"))
        images = [image for name in folders for image in load_images(name, results=self.results)]
        mine = [image for image in images if image.control and image.experiment in self.names]
        return sorted(mine, key=lambda image: self.names.index(image.experiment))

    @cached_property
    def _all_scores(self) -> Scores:
        folders = dict.fromkeys(image.path.parent.name for image in self.controlled)
        return load_scores([*self.names, *folders] if self.given is None else [], self.results)

    @property
    def measurements(self) -> Measurements:
        """Experiment, or folder of controlled images, to what was measured."""
        return self._all_scores.measurements() if self.given is None else self.given

    @property
    def scores(self) -> Scores:
        """What `sdlab score` left of experiments; empty where the measurements come from elsewhere."""
        folders = {image.path.parent.name for image in self.controlled}
        return Scores({k: tally for k, tally in self._all_scores.tallies.items() if k not in folders})

    @cached_property
    def best(self) -> Mapping[str, str]:
        """Method to the experiment that stands for it in the comparison, and "why"."""
        return self.pair or _best({method: self.of(method) for method in METHOD_NAMES}, self)

    def of(self, method: str) -> list[Experiment]:
        """The experiments of a method."""
        return [one for one in self.experiments if one.hyperparameters.method == method]

    def training(self, experiments: Sequence[Experiment]) -> Figures:
        """What differs between them, and what their training took."""
        return summary(experiments, root=self.root, language=self.words.language)

    def table(self, names: Sequence[str], *, photos: bool = False) -> Table:
        """Their images beside the base model's, in the rows; above them photos of the subject."""
        shown = self.dataset.images if photos and self.dataset is not None else ()
        how = self.setting, self.results, self.root, self.images_per_cell
        return lay_out([BASE, *names], self.prompts, *how, shown, self.words)


def find_experiments(
    experiments: Iterable[str | Experiment] | None, root: Path, results: Path
) -> tuple[list[Experiment], list[str]]:
    """The experiments, and folders of images that no experiment here made."""
    named = find(root) if experiments is None else [one for one in experiments if one != BASE]
    chosen, elsewhere = [], []
    for one in named:
        if isinstance(one, Experiment):
            chosen.append(one)
        elif not (root / one / "experiment.json").is_file() and image_files(results / one):
            elsewhere.append(one)
        else:
            chosen.append(Experiment.load(one, root))
    if not chosen:
        raise ValueError(
            f"there are no experiments in {root}. Train some: `sdlab train dreambooth --name ...`."
        )
    if len({one.root.resolve() for one in chosen}) > 1 or len({one.name for one in chosen}) < len(chosen):
        raise ValueError(
            "the experiments of a report must lie in one folder, each named once, because their images do "
            f"too; got {', '.join(one.path.as_posix() for one in chosen)}. Rename those of the same name, "
            "folder and images, or make a report of each folder with --root, --results and --out."
        )
    return chosen, elsewhere


def _best(groups: Mapping[str, Sequence[Experiment]], material: Material) -> dict[str, str]:
    """The best of each method by `recommend`, else by the first measurement, or the only ones there are."""
    scores, measurements, words = material.scores, material.measurements, material.words
    chosen = {method: _recommended(group, scores) for method, group in groups.items()}
    if all(chosen.values()):
        why = words("compared_rule")
        if strays := [one for one in chosen.values() if not as_faithful(scores.of("CLIP-T"), one)]:
            why += " " + words("compared_strays", names=", ".join(strays))
        return {**chosen, "why": why}
    if first := next((name for values in measurements.values() for name in values), None):
        measure = Measure.of(first, measurements, words)
        ranked = {method: measure.ranked(one.name for one in group) for method, group in groups.items()}
        if all(ranked.values()):
            best = {method: names[0] for method, names in ranked.items()}
            return {**best, "why": words("compared_best", name=words.name(first))}
    if all(len(group) == 1 for group in groups.values()):
        return {method: group[0].name for method, group in groups.items()}
    return {}


def _recommended(experiments: Sequence[Experiment], scores: Scores) -> str:
    """The best by the rule of the scores; none where they weren't taken."""
    likeness = scores.of(scores.likeness)
    names = [one.name for one in experiments if one.name in likeness]
    if not names or not scores.of("CLIP-T"):
        return ""
    return recommend(Scores({name: scores[name] for name in [BASE, *names] if name in scores.tallies})).name
