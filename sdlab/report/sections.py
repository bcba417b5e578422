"""What the report says, section by section, from what is on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab import thumbnails
from sdlab.experiment import Experiment
from sdlab.generate import load_images
from sdlab.photos import Dataset
from sdlab.prompts import PromptSet
from sdlab.report.conclusion import conclusion
from sdlab.report.curves import loss_curves
from sdlab.table import Figures, Table, duration, number, summary, table
from sdlab.table.captions import BASE

Measurements = Mapping[str, Mapping[str, Any]]
PLACES = ("instance_data_dir", "class_data_dir")
PRIOR = ("class_prompt", "prior_loss_weight", "num_class_images")
NOT_IN_A_COMMAND = (*PLACES, "method", "checkpointing_steps", "checkpoints_total_limit")


@dataclass(frozen=True)
class Section:
    """One section: paragraphs, then figures, a curve and a table of pictures, where there are any."""

    title: str
    paragraphs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    figures: Figures | None = None
    curve: bytes = b""
    table: Table | None = None
    points: tuple[str, ...] = ()
    editable: bool = False

    @property
    def key(self) -> str:
        """The title as a file's name and an anchor."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


@dataclass(frozen=True)
class Material:
    """Everything that the sections are made from."""

    experiments: tuple[Experiment, ...]
    prompts: PromptSet
    results: Path
    dataset: Dataset | None
    measurements: Measurements
    best: Mapping[str, str]
    images_per_cell: int
    note: str = ""

    def of(self, method: str) -> list[Experiment]:
        """The experiments of a method."""
        return [one for one in self.experiments if one.hyperparameters.method == method]

    def figures(self, experiments: Sequence[str | Experiment]) -> Figures:
        """Their figures with the measurements."""
        return summary(experiments, root=self.root, measurements=self.measurements)

    def table(self, experiments: Sequence[Experiment], **options: Any) -> Table:
        """Their images beside the base model's."""
        names = [BASE, *(one.name for one in experiments)]
        options = {"images_per_cell": self.images_per_cell, **options}
        return table(names, self.prompts, results=self.results, root=self.root, **options)

    @property
    def root(self) -> Path:
        """Folder of the experiments."""
        return self.experiments[0].root


def all_sections(material: Material) -> list[Section]:
    """The report's sections, those that there is something to say in.

    Args:
        material: what is on disk.

    Returns:
        Dataset, DreamBooth, the two sweeps, other LoRAs, the comparison, conclusion, reproducibility.
    """
    rates = sweep_over("learning_rate", material.of("lora"))
    ranks = sweep_over("rank", material.of("lora"))
    others = [one for one in material.of("lora") if one not in [*rates, *ranks]]
    sections = [
        _dataset(material),
        _prompts(material),
        _experiments(material, "DreamBooth", material.of("dreambooth")),
        _experiments(material, "LoRA: learning rate", rates, varied="learning rate"),
        _experiments(material, "LoRA: rank", ranks, varied="rank"),
        _experiments(material, "LoRA" if len(others) == len(material.of("lora")) else "LoRA: more", others),
        _comparison(material),
        Section(
            "Conclusion",
            (material.note,),
            points=tuple(conclusion(material.experiments, rates, ranks, material.measurements)),
            editable=True,
        ),
        _reproducibility(material),
    ]
    return [section for section in sections if section is not None]


def sweep_over(name: str, experiments: Sequence[Experiment]) -> list[Experiment]:
    """The largest group of experiments that differ in one hyperparameter only, ordered by it.

    Args:
        name: the hyperparameter, such as "rank".
        experiments: of one method.

    Returns:
        At least two experiments, or none.
    """
    groups: dict[str, list[Experiment]] = {}
    for one in experiments:
        values = {k: v for k, v in one.hyperparameters.as_dict().items() if k not in NOT_IN_A_COMMAND}
        del values[name]
        groups.setdefault(str(values), []).append(one)
    largest = max(groups.values(), key=len, default=[])
    if len({getattr(one.hyperparameters, name) for one in largest}) < 2:
        return []
    return sorted(largest, key=lambda one: float(getattr(one.hyperparameters, name)))


def _dataset(material: Material) -> Section | None:
    dataset = material.dataset
    if dataset is None:
        return None
    sample = PromptSet({f"photo{index + 1}": "a photo" for index in range(min(5, len(dataset)))})
    pictures = dataset.images[: len(sample.prompts) * 2]
    text = (
        f"{len(dataset)} photos of the subject, cropped to {dataset.resolution}×{dataset.resolution} pixels."
    )
    if left_out := len(dataset.refused) + len(dataset.dropped):
        text += f" {left_out} more could not be used."
    found = dict.fromkeys(finding.kind for finding in dataset.findings if finding.level != "note")
    points = tuple(_what_was_found(dataset, kind) for kind in found)
    text += " Table 1: samples of the dataset" + (", and what may spoil the training." if points else ".")
    return Section("Dataset", (text,), table=photo_table(pictures), points=points)


def _what_was_found(dataset: Dataset, kind: str) -> str:
    """One kind of the doctor's findings, without names of photos, which are nobody's business."""
    findings = [finding for finding in dataset.findings if finding.kind == kind]
    images = sum(bool(finding.file) for finding in findings)
    what = f"{kind.replace('_', ' ')} in {images} of {len(dataset)}" if images else findings[0].text
    return f"{what}: {findings[0].effect}"


def photo_table(pictures: Sequence[Path], columns: int = 5) -> Table:
    """Photos in rows, without headings."""
    from sdlab.table import Cell, Heading

    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    cells = [
        tuple(Cell(f"photo_{path.stem}", f"photo of the subject, {path.stem}", (path,)) for path in row)
        + tuple(Cell("", "") for _ in range(columns - len(row)))
        for row in rows
    ]
    headings = tuple(Heading("") for _ in range(columns))
    return Table(tuple(Heading("") for _ in rows), headings, tuple(cells), images_per_cell=1)


def _prompts(material: Material) -> Section:
    points = [f"{name}: {text}" for name, text in material.prompts.prompts.items()]
    if material.prompts.negative_prompt:
        points.append(f"negative prompt: {material.prompts.negative_prompt}")
    return Section("Prompts", points=tuple(points))


def _experiments(
    material: Material, title: str, experiments: Sequence[Experiment], *, varied: str = ""
) -> Section | None:
    if not experiments:
        return None
    reference = None if varied or material.dataset is None else material.dataset.images
    shared = "Hyperparameters:" if len(experiments) == 1 else "Hyperparameters that all of them share:"
    if varied:
        shared = f"{len(experiments)} LoRAs that differ in the {varied} only. {shared}"
    curve = loss_curves(experiments, ordered=bool(varied))
    with_base: list[str | Experiment] = (
        [BASE, *experiments] if material.measurements.get(BASE) else list(experiments)
    )
    return Section(
        title,
        (shared,),
        flags=shared_flags(experiments),
        figures=material.figures(with_base),
        curve=thumbnails.webp(curve, quality=85) if curve else b"",
        table=material.table(experiments, reference=reference),
        points=tuple(f"{one.name}: {said}" for one in experiments if (said := one.record.get("diagnosis"))),
    )


def _comparison(material: Material) -> Section | None:
    chosen = [one for one in material.experiments if one.name in material.best.values()]
    if len(chosen) < 2:
        return None
    return Section(
        "DreamBooth against LoRA",
        (material.best.get("why", ""),),
        figures=material.figures(chosen),
        table=material.table(
            chosen,
            rows="prompts",
            reference=material.dataset.images if material.dataset is not None else None,
        ),
    )


def shared_flags(experiments: Sequence[Experiment]) -> tuple[str, ...]:
    """Hyperparameters that all have in common, as diffusers' flags."""
    known = [one.hyperparameters.as_dict() for one in experiments]
    shared = {k: v for k, v in known[0].items() if all(other.get(k) == v for other in known)}
    without_prior = not any(values["with_prior_preservation"] for values in known)
    left_out = (*NOT_IN_A_COMMAND, *(PRIOR if without_prior else ()))
    flags = []
    for name, value in shared.items():
        if name in left_out or value is None or value is False or name.startswith("adam_"):
            continue
        text = plain_place(value) if isinstance(value, str) else number(value)
        quoted = f'"{text}"' if " " in text else text
        flags.append(f"--{name}" if value is True else f"--{name}={quoted}")
    return tuple(flags)


def plain_place(text: str) -> str:
    """A folder's or model's name without the path on this machine."""
    return Path(text).name if Path(text).is_absolute() or text.startswith("~") else text


def _reproducibility(material: Material) -> Section:
    records = [one.record for one in material.experiments]
    rows = {"base model": _all(plain_place(str(record.get("base", ""))) for record in records)}
    rows["fingerprint of its weights"] = _all(record.get("base_fingerprint") for record in records)
    if material.dataset is not None:
        rows["dataset"] = f"{len(material.dataset)} images, fingerprint {material.dataset.fingerprint}"
    rows["seed of the training"] = _all(one.hyperparameters.seed for one in material.experiments)
    images = [
        image for one in material.experiments for image in load_images(one.name, results=material.results)
    ]
    if images:
        rows["images"] = (
            f"seeds {_all(sorted({i.seed for i in images}))}, sampler {_all(i.sampler for i in images)}, "
            f"{_all(i.num_inference_steps for i in images)} steps, "
            f"guidance_scale {_all(number(i.guidance_scale) for i in images)}"
        )
    rows |= _machine([record.get("environment") or {} for record in records])
    times = [record["seconds"] for record in records if "seconds" in record]
    if times:
        rows["training time"] = f"{duration(sum(times))} for {len(times)} experiments"
    memory = [record["peak_memory_gb"] for record in records if "peak_memory_gb" in record]
    if memory:
        rows["peak memory"] = f"{max(memory):.2g} GB"
    table = tuple({"what": name, "value": value} for name, value in rows.items() if value)
    return Section("Reproducibility", figures=Figures(table))


def _machine(environments: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(name for environment in environments for name in environment)
    return {name: _all(environment.get(name) for environment in environments) for name in names}


def _all(values: Any) -> str:
    """Distinct values, in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))
