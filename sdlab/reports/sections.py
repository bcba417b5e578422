"""What the report says, section by section, from what is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdlab.experiment import Experiment
from sdlab.photos import Dataset
from sdlab.reports.blocks import Block, Flags, Numbers, Paragraph, Pictures, Place, Plot, Points, Section
from sdlab.reports.conclusion import conclusion
from sdlab.reports.control import control_costs, control_section
from sdlab.reports.curves import loss_curves, sweep_curves
from sdlab.reports.diagnosis import said_of
from sdlab.reports.flags import shared_flags, sweep_over
from sdlab.reports.material import Material
from sdlab.reports.reproducibility import reproducibility
from sdlab.reports.scores import scores_section
from sdlab.tables import Table
from sdlab.templates import markdown_text
from sdlab.words import Words


def all_sections(material: Material, title: str, author: str) -> list[Section]:
    """The report's sections, those that there is something to say in.

    Args:
        material: what is on disk.
        title: of the report.
        author: a line under it; empty for none.

    Returns:
        Title, dataset, prompts, DreamBooth, the two sweeps, other LoRAs, the comparison, ControlNet, scores,
        conclusion, reproducibility; each with a place for the student's remark.
    """
    say, loras = material.say, material.of("lora")
    rates, ranks = sweep_over("learning_rate", loras), sweep_over("rank", loras)
    others = [one for one in loras if one not in [*rates, *ranks]]
    sections = [
        _opening(title, author, say),
        _dataset(material),
        _prompts(material),
        _experiments(material, "dreambooth", material.of("dreambooth")),
        _experiments(material, "learning_rate", rates, varied="learning_rate"),
        _experiments(material, "rank", ranks, varied="rank"),
        _experiments(material, "lora" if len(others) == len(loras) else "more_lora", others),
        _comparison(material),
        control_section(material),
        scores_section(material),
        _conclusion(material, rates, ranks),
        reproducibility(material),
    ]
    return [_with_remark(section) for section in sections if section is not None]


def _with_remark(section: Section) -> Section:
    """The section with a place at its end, where it hasn't one of its own."""
    if any(isinstance(block, Place) for block in section.blocks):
        return section
    return Section(section.key, section.title, (*section.blocks, Place(f"remark-{section.key}")))


def _opening(title: str, author: str, say: Words) -> Section:
    lines = [f"# {markdown_text(title)}"]
    if author:
        lines.append(markdown_text(say("author", author=author)))
    return Section("title", "", (Place("title", draft="\n\n".join(lines)), Place("introduction")))


def _dataset(material: Material) -> Section | None:
    dataset, say = material.dataset, material.say
    if dataset is None:
        return None
    text = say("dataset_made", count=len(dataset), side=dataset.resolution)
    if left_out := len(dataset.refused) + len(dataset.dropped):
        text += " " + say("dataset_left_out", count=left_out)
    found = dict.fromkeys(finding.kind for finding in dataset.findings if finding.level != "note")
    points = tuple(_what_was_found(dataset, kind, say) for kind in found)
    warned: list[Block] = [Paragraph(say("dataset_found")), Points(points)] if points else []
    photos = Pictures(photo_table(dataset.images[:10], say), say("dataset_table"))
    return Section("dataset", say("dataset"), (Paragraph(text), photos, *warned))


def _what_was_found(dataset: Dataset, kind: str, say: Words) -> str:
    """One kind of the doctor's findings, without names of photos, which are nobody's business."""
    findings = [finding for finding in dataset.findings if finding.kind == kind]
    first, images = findings[0], sum(bool(finding.file) for finding in findings)
    words = {"kind": say.name(kind).replace("_", " "), "effect": say.name(first.effect)}
    if images:
        return say("found_in", images=images, count=len(dataset), **words)
    return say("found", value=f"{first.value:g}", limit=f"{first.threshold:g}", **words)


def photo_table(pictures: Sequence[Path], say: Words, columns: int = 5) -> Table:
    """Photos in rows, without headings."""
    from sdlab.tables import Cell, Heading

    alt = say("photos_of_the_subject")
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    cells = [
        tuple(Cell(f"photo_{path.stem}", f"{alt}, {path.stem}", (path,)) for path in row)
        + tuple(Cell("", "") for _ in range(columns - len(row)))
        for row in rows
    ]
    headings = tuple(Heading("") for _ in range(columns))
    blank = tuple(Heading("") for _ in rows)
    return Table(blank, headings, tuple(cells), images_per_cell=1, language=say.language)


def _prompts(material: Material) -> Section:
    say = material.say
    points = [f"{name}: {text}" for name, text in material.prompts.prompts.items()]
    if material.prompts.negative_prompt:
        points.append(f"{say('negative_prompt')}: {material.prompts.negative_prompt}")
    return Section("prompts", say("prompts"), (Paragraph(say("prompts_all")), Points(tuple(points))))


def _experiments(
    material: Material, key: str, experiments: Sequence[Experiment], *, varied: str = ""
) -> Section | None:
    """Experiments of one kind: hyperparameters, figures, curves, what was measured, and the images."""
    if not experiments:
        return None
    say, title = material.say, material.say(key)
    shared = say("flags_of_one" if len(experiments) == 1 else "flags_shared")
    if varied:
        shared = say("differ_in", count=len(experiments), what=say(f"what_{varied}")) + " " + shared
    photos = material.dataset.images if material.dataset is not None and not varied else None
    diagnoses = [(one.name, said_of(one, say)) for one in experiments]
    took = Numbers(material.training(experiments), say("training_table", title=title))
    blocks: list[Block] = [Paragraph(shared), Flags(shared_flags(experiments)), took]
    if curve := loss_curves(experiments, ordered=bool(varied), language=say.language):
        blocks.append(Plot(f"loss_{key}", curve, say("loss_curves", title=title)))
    blocks.append(Points(tuple(f"{name}: {said}" for name, said in diagnoses if said)))
    blocks += _measured(material, key, experiments, varied)
    pictures = material.table(experiments, reference=photos)
    blocks.append(Pictures(pictures, say("pictures_table", title=title)))
    return Section(key, title, tuple(blocks))


def _measured(material: Material, key: str, experiments: Sequence[Experiment], varied: str) -> list[Block]:
    """The measurements of these experiments as a table, and of a sweep as a curve."""
    say = material.say
    names = [one.name for one in experiments]
    if not any(material.measurements.get(name) for name in names):
        return []
    caption = say("measured_table", title=say(key))
    blocks: list[Block] = [Numbers(material.measured(names), caption)]
    if varied and (curve := sweep_curves(experiments, varied, material.measurements, say)):
        blocks.append(Plot(f"measured_{key}", curve, say("along", title=say(key))))
    return blocks


def _comparison(material: Material) -> Section | None:
    """The best of each method beside each other, photos and base model first."""
    chosen = [one for one in material.experiments if one.name in material.best.values()]
    if len(chosen) < 2:
        return None
    say = material.say
    pair = [material.best.get(method, "") for method in ("dreambooth", "lora")]
    why = [material.best.get("why", ""), say("compared_pair", dreambooth=pair[0], lora=pair[1])]
    names = [one.name for one in chosen]
    blocks: list[Block] = [Paragraph(" ".join(filter(None, why)))]
    blocks.append(Numbers(material.training(chosen), say("training_table", title=say("comparison"))))
    if any(material.measurements.get(name) for name in names):
        blocks.append(Numbers(material.measured(names), say("measured_table", title=say("comparison"))))
    photos = material.dataset.images if material.dataset is not None else None
    pictures = material.table(chosen, columns="experiments", reference=photos)
    blocks.append(Pictures(pictures, say("pictures_table", title=say("comparison"))))
    return Section("comparison", say("comparison"), tuple(blocks))


def _conclusion(material: Material, rates: Sequence[Experiment], ranks: Sequence[Experiment]) -> Section:
    sentences = conclusion(
        material.experiments,
        rates,
        ranks,
        material.measurements,
        pair=material.best,
        controlled=control_costs(material),
        drift=material.scores.of("PRES"),
        say=material.say,
    )
    draft = "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)
    return Section("conclusion", material.say("conclusion"), (Place("conclusion", draft=draft),))
