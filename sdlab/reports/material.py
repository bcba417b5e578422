"""What a report is made from, as it lies on disk."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sdlab.config import number
from sdlab.experiment import Experiment, find, several
from sdlab.files import fingerprint
from sdlab.images import ImageRecord, Setting, load_images
from sdlab.photos import Dataset, instance_images
from sdlab.photos.dataset import RECORD_FILE
from sdlab.prompts import PromptSet
from sdlab.reports.conclusion import Measure, Measurements, conclusion
from sdlab.reports.flags import sweep_over
from sdlab.sampling import image_files
from sdlab.scores import Scores, as_faithful, load_scores, recommend
from sdlab.subject import Subject
from sdlab.tables import Figures, Table, control_table, figures, summary
from sdlab.tables.building import By, choose_setting, grouped, lay_out, scales_of
from sdlab.tables.figures import BASE, METHOD_NAMES, RECORDED, plain_place
from sdlab.verdict import percent, verdict_of
from sdlab.words import Words


@dataclass(frozen=True)
class Material:
    """Everything that templates/report.md speaks of, read when it is asked for.

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

    # ---- the experiments and what they were trained on

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
        return self.experiments[0].hyperparameters.subject

    @cached_property
    def dataset(self) -> Dataset | None:
        """The photos; None where they aren't on this disk, or their record can't be read."""
        if not (self.photos / RECORD_FILE).is_file():
            return None
        trained_on = {
            one.name: found for one in self.experiments if (found := one.record.get("instance_images"))
        }
        now = fingerprint(instance_images(self.photos, print))
        if others := [name for name, found in trained_on.items() if found != now]:
            warnings.warn(
                f"the photos in {self.photos}, which the report shows, aren't those that {', '.join(others)} "
                "learned from. Name their folder: --dataset.",
                stacklevel=2,
            )
        try:
            return Dataset.load(self.photos)
        except ValueError as error:
            warnings.warn(f"the report shows no photos: {error}", stacklevel=2)
            return None

    def of(self, method: str) -> list[Experiment]:
        """The experiments of a method."""
        return [one for one in self.experiments if one.hyperparameters.method == method]

    @cached_property
    def rates(self) -> list[Experiment]:
        """The sweep of LoRA's learning rate."""
        return sweep_over("learning_rate", self.of("lora"))

    @cached_property
    def ranks(self) -> list[Experiment]:
        """The sweep of LoRA's rank."""
        return sweep_over("rank", self.of("lora"))

    @property
    def other_loras(self) -> list[Experiment]:
        """The LoRAs that are in neither sweep."""
        return [one for one in self.of("lora") if one not in self.rates and one not in self.ranks]

    def troubles(self, experiments: Sequence[Experiment]) -> Iterator[str]:
        """What went wrong in their trainings, a sentence for all of one kind."""
        for key in ("moved_nothing", "moved_too_far", "memorised"):
            if some := [one for one in experiments if verdict_of(one) == key]:
                changes = [percent(one.record["prediction_change"]) for one in some]
                names = self.words.listed([one.name for one in some])
                yield self.words(f"r_{key}", names=names, changes=self.words.listed(changes))

    def training(self, experiments: Sequence[Experiment]) -> Figures:
        """What differs between them, and what their training took."""
        return summary(experiments, root=self.root, language=self.words.language)

    # ---- their images

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

    @property
    def unlike(self) -> list[str] | None:
        """Those without the prompts and seeds of the others; None where nothing can be compared."""
        made: dict[str, set[tuple[str, str, int]]] = {name: set() for name in self.names}
        for image in self.images:
            made.setdefault(image.experiment, set()).add((image.prompt_name, image.prompt, image.seed))
        most = max(made.values(), key=len, default=set())
        return [name for name, given in made.items() if given != most] if most else None

    def table(self, names: Sequence[str], *, photos: bool = False) -> Table:
        """Their images beside the base model's, in the rows; above them photos of the subject."""
        shown = self.dataset.images if photos and self.dataset is not None else ()
        how = self.setting, self.results, self.root, self.images_per_cell
        return lay_out([BASE, *names], self.prompts, *how, shown, self.words)

    # ---- images made with control

    @cached_property
    def controlled(self) -> list[ImageRecord]:
        """Images made with control, by experiment in the order of the report, then by folder."""
        folders = sorted(path.parent.name for path in self.results.glob("*/images.json"))
        images = [image for name in folders for image in load_images(name, results=self.results)]
        mine = [image for image in images if image.control and image.experiment in self.names]
        return sorted(mine, key=lambda image: self.names.index(image.experiment))

    @property
    def control_kinds(self) -> list[str]:
        """Canny, depth, pose, as far as they were used."""
        return list(dict.fromkeys(one["kind"] for image in self.controlled for one in image.control))

    def control_settings(self) -> list[str]:
        """What the controls were set to, a sentence for all that were set alike."""
        groups: dict[tuple[str, float, float], list[Mapping[str, Any]]] = {}
        for one in (control for image in self.controlled for control in image.control):
            groups.setdefault((one["image"], one["start"], one["end"]), []).append(one)
        lines = []
        for (name, start, end), alike in groups.items():
            kinds = self.words.listed([*dict.fromkeys(one["kind"] for one in alike)])
            scales = _listed(sorted({one["scale"] for one in alike}))
            line = self.words("control_settings", kinds=kinds, image=name, scale=scales)
            if (start, end) != (0, 1):
                line += self.words("control_steps", start=f"{start:g}", end=f"{end:g}")
            for low, high in dict.fromkeys(
                (one["low_threshold"], one["high_threshold"]) for one in alike if "low_threshold" in one
            ):
                line += self.words("control_thresholds", low=f"{low:g}", high=f"{high:g}")
            lines.append(f"{line}.")
        return lines

    def control_tables(self) -> Iterator[tuple[str, Table]]:
        """Captions and tables of control image, control map and images.

        Prompts beside each other for each experiment as in homework B, or experiments beside each other where
        there is one prompt; then scales.
        """
        words = self.words

        def shown(images: Sequence[ImageRecord], columns: By) -> Table:
            return control_table(images, columns=columns, root=self.root, language=words.language)

        usual = grouped(self.controlled, "scale")[scales_of(self.controlled[0])]
        prompt, names = usual[0].prompt_name, list(grouped(usual, "experiment"))
        if len(names) > 1 and len(grouped(usual, "prompt")) == 1:
            yield words("control_by_experiment", prompt=prompt), shown(usual, "experiment")
        else:
            for name, mine in grouped(usual, "experiment").items():
                yield words("control_by_prompt", experiment=name), shown(mine, "prompt")
        for name, mine in grouped(grouped(self.controlled, "prompt")[prompt], "experiment").items():
            controls = grouped(mine, "control").values()
            several = [image for group in controls if len(grouped(group, "scale")) > 1 for image in group]
            if several:
                caption = words("control_by_scale", experiment=name, prompt=prompt)
                yield caption, shown(several, "scale")

    def _control_of(self, image: ImageRecord) -> str:
        """`canny`, or `canny + pose (hat.png), scale 0.5`; the control image where there are several."""
        kinds, scales = " + ".join(one["kind"] for one in image.control), scales_of(image)
        if len({one["image_sha256"] for other in self.controlled for one in other.control}) > 1:
            kinds += f" ({', '.join(dict.fromkeys(one['image'] for one in image.control))})"
        return kinds if set(scales) == {1.0} else f"{kinds}, {self.words('scale', scale=_listed(scales))}"

    # ---- what was measured

    @cached_property
    def _all_scores(self) -> Scores:
        folders = dict.fromkeys(image.path.parent.name for image in self.controlled)
        return load_scores([*self.names, *folders] if self.given is None else [], self.results, self.root)

    @property
    def measurements(self) -> Measurements:
        """Experiment, or folder of controlled images, to what was measured."""
        return self._all_scores.measurements() if self.given is None else self.given

    @cached_property
    def scores(self) -> Scores:
        """What `sdlab score` left of experiments; empty where the measurements come from elsewhere."""
        folders = {image.path.parent.name for image in self.controlled}
        return Scores({k: tally for k, tally in self._all_scores.tallies.items() if k not in folders})

    @property
    def _drift(self) -> Mapping[str, Any]:
        """Experiment to what became of the class."""
        given = {name: found["PRES"] for name, found in (self.given or {}).items() if "PRES" in found}
        return given or self.scores.of("PRES")

    def score_table(self) -> Figures:
        """The scores, or the measurements that were given."""
        if self.scores.tallies:
            return self._all_scores.table(self.words.language)
        names = [*dict.fromkeys([*self.names, *self.measurements])]
        rows = [{"experiment": name, **found} for name in names if (found := self.measurements.get(name))]
        return figures(rows, language=self.words.language)

    @cached_property
    def best(self) -> Mapping[str, str]:
        """Method to the experiment that stands for it in the comparison, and "why"."""
        groups, pair = {m: [one.name for one in self.of(m)] for m in METHOD_NAMES}, self.pair or {}
        for method, names in groups.items():
            if method in pair and pair[method] not in names:
                raise ValueError(
                    f"the best {METHOD_NAMES[method]} must be one of the report's, "
                    f"{', '.join(names) or 'which has none'}; got {pair[method]!r}."
                )
        if set(groups) <= set(pair):
            return pair
        chosen = self._chosen(groups)
        return {**chosen, "why": "", **pair} if pair else chosen

    def _chosen(self, groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """The best by `recommend`, else by the first measurement, or the only ones there are, and "why"."""
        scores, words = self.scores, self.words
        chosen = {method: self._recommended(names) for method, names in groups.items()}
        if all(chosen.values()):
            why = words("compared_rule")
            if strays := [one for one in chosen.values() if not as_faithful(scores.of("CLIP-T"), one)]:
                why += " " + words("compared_strays", names=", ".join(strays))
            return {**chosen, "why": why}
        if first := next((name for values in self.measurements.values() for name in values), None):
            measure = Measure.of(first, self.measurements, words)
            ranked = {method: measure.ranked(names) for method, names in groups.items()}
            if all(ranked.values()):
                best = {method: names[0] for method, names in ranked.items()}
                return {**best, "why": words("compared_best", name=words.name(first))}
        alone = all(len(names) == 1 for names in groups.values())
        return {method: names[0] for method, names in groups.items()} if alone else {}

    def _recommended(self, names: Sequence[str]) -> str:
        """The best by the rule of the scores; none where they weren't taken."""
        scores = self.scores
        scored = [name for name in names if name in scores.of(scores.likeness)]
        if not scored or not scores.of("CLIP-T"):
            return ""
        shown = {name: scores[name] for name in [BASE, *scored] if name in scores.tallies}
        return recommend(Scores(shown)).name

    @property
    def compared(self) -> list[str]:
        """The best of each method, in the order of the report."""
        return [one.name for one in self.experiments if one.name in self.best.values()]

    def conclusion(self) -> list[str]:
        """The draft of the conclusion."""
        scores = self._all_scores
        of_subject = [
            sum(scores.likeness in row for row in tally.images) or len(tally.images)
            for tally in scores.tallies.values()
        ]
        low, high = min(of_subject, default=0), max(of_subject, default=0)
        controlled = {
            one.path.parent.name: (one.experiment, self._control_of(one)) for one in self.controlled
        }
        return conclusion(
            self.experiments,
            self.rates,
            self.ranks,
            self.measurements,
            pair=self.best,
            controlled=controlled,
            kinds=self.control_kinds,
            drift=self._drift,
            images=str(low or "") if low == high else self.words("span", low=low, high=high),
            words=self.words,
        )

    # ---- what somebody needs who wants these results again

    def reproducibility(self) -> Figures:
        """Versions, machine, seeds, times and sizes."""
        words, images, dataset = self.words, self.images, self.dataset
        records = [one.record for one in self.experiments]
        environments = [one for record in records if isinstance(one := record.get("environment"), dict)]
        machine = dict.fromkeys(name for environment in environments for name in environment)
        how = {
            "seeds": _all(sorted({image.seed for image in images})),
            "sampler": _all(image.sampler for image in images),
            "steps": _all(image.num_inference_steps for image in images),
            "guidance": _all(number(image.guidance_scale) for image in images),
        }
        photos = {} if dataset is None else {"count": len(dataset), "fingerprint": dataset.fingerprint}
        rows = {
            "base model": _all(plain_place(str(record.get("base", ""))) for record in records),
            "fingerprint of its weights": _all(record.get("base_fingerprint") for record in records),
            "dataset": words("dataset_is", **photos) if photos else "",
            "seed of the training": _all(one.hyperparameters.seed for one in self.experiments),
            "images": words("images_made", **how) if images else "",
            "LoRAs trained in one pass": _all(n for one in records if (n := one.get("in_one_pass", 1)) > 1),
            **{name: _all(environment.get(name) for environment in environments) for name in machine},
            **self._costs(),
        }
        table = [{"what": words.name(name), "value": value} for name, value in rows.items() if value]
        return figures(table, language=words.language)

    def _costs(self) -> dict[str, str]:
        """What all trainings took together, and the largest memory."""
        took, rows = self.training(self.experiments), {}
        named = {"training time": "time", "peak memory": "peak memory", "size of the results": "size"}
        for name, column in named.items():
            if column not in took:
                continue
            values = pd.to_numeric(took[column], errors="coerce").dropna()  # a record may have been edited
            write = RECORDED[column][1]
            if column == "peak memory":
                rows[name] = write(values.max(), self.words)
            else:
                whole = write(values.sum(), self.words)
                rows[name] = self.words("for_experiments", value=whole, count=len(values))
        return rows


def find_experiments(
    experiments: str | Experiment | Iterable[str | Experiment] | None, root: Path, results: Path
) -> tuple[list[Experiment], list[str]]:
    """The experiments, and folders of images that no experiment here made."""
    named = find(root) if experiments is None else [one for one in several(experiments) if one != BASE]
    chosen, elsewhere = [], []
    for one in named:
        if isinstance(one, Experiment):
            chosen.append(one)
        elif not (root / one / "experiment.json").is_file() and image_files(results / one):
            elsewhere.append(one)
        else:
            chosen.append(Experiment.load(one, root))
    if not chosen:
        lacking = "a report needs at least one experiment that was trained here."
        if experiments is None:
            lacking = f"there are no experiments in {root}."
        raise ValueError(f"{lacking} Train one with `sdlab train dreambooth`, or name its folder by --root.")
    if len({one.root.resolve() for one in chosen}) > 1 or len({one.name for one in chosen}) < len(chosen):
        raise ValueError(
            "the experiments of a report must lie in one folder, each named once, because their images do "
            f"too; got {', '.join(one.path.as_posix() for one in chosen)}. Rename those of the same name, "
            "folder and images, or make a report of each folder with --root, --results and --out."
        )
    return chosen, elsewhere


def _listed(scales: Iterable[float]) -> str:
    return ", ".join(f"{scale:g}" for scale in scales)


def _all(values: Iterable[Any]) -> str:
    """Distinct values, in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))
