"""What the report says, section by section, from what is on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sdlab.config import number
from sdlab.experiment import Experiment
from sdlab.images import ImageRecord
from sdlab.photos import Dataset
from sdlab.reports.blocks import Block, Flags, Numbers, Paragraph, Pictures, Place, Plot, Points, Section
from sdlab.reports.conclusion import conclusion
from sdlab.reports.control import control_costs, control_section
from sdlab.reports.curves import loss_curves, picture, sweep_curves
from sdlab.reports.flags import shared_flags, sweep_over
from sdlab.reports.material import Material
from sdlab.scores import MEASURES, recommend
from sdlab.scores.plots import tradeoff
from sdlab.tables import duration, figures, photo_table
from sdlab.tables.captions import BASE, plain_place
from sdlab.templates import markdown_text
from sdlab.verdict import sentence_of, verdict_of
from sdlab.words import Words


def all_sections(material: Material, title: str, author: str) -> list[Section]:
    """The report's sections, those that there is something to say in, each with a place for a remark."""
    words, loras = material.words, material.of("lora")
    rates, ranks = sweep_over("learning_rate", loras), sweep_over("rank", loras)
    others = [one for one in loras if one not in [*rates, *ranks]]
    sections = [
        _opening(title, author, words),
        _dataset(material),
        _prompts(material),
        _experiments(material, "dreambooth", material.of("dreambooth")),
        _experiments(material, "learning_rate", rates, varied="learning_rate"),
        _experiments(material, "rank", ranks, varied="rank"),
        _experiments(material, "lora" if len(others) == len(loras) else "more_lora", others),
        _comparison(material),
        control_section(material),
        _scores(material),
        _conclusion(material, rates, ranks),
        _reproducibility(material),
    ]
    return [_with_remark(section) for section in sections if section is not None]


def _with_remark(section: Section) -> Section:
    """The section with a place at its end, where it hasn't one of its own."""
    if any(isinstance(block, Place) for block in section.blocks):
        return section
    return Section(section.key, section.title, (*section.blocks, Place(f"remark-{section.key}")))


def _opening(title: str, author: str, words: Words) -> Section:
    lines = [f"# {markdown_text(title)}"]
    if author:
        lines.append(markdown_text(words("author", author=author)))
    return Section("title", "", (Place("title", draft="\n\n".join(lines)), Place("introduction")))


def _dataset(material: Material) -> Section | None:
    dataset, words = material.dataset, material.words
    if dataset is None:
        return None
    text = words("dataset_made", count=len(dataset), side=dataset.resolution)
    if left_out := len(dataset.refused) + len(dataset.dropped):
        text += " " + words("dataset_left_out", count=left_out)
    found = dict.fromkeys(finding.kind for finding in dataset.findings if finding.level != "note")
    points = tuple(_what_was_found(dataset, kind, words) for kind in found)
    warned: list[Block] = [Paragraph(words("dataset_found")), Points(points)] if points else []
    photos = Pictures(photo_table(dataset.images[:10], words.language), words("dataset_table"))
    return Section("dataset", words("dataset"), (Paragraph(text), photos, *warned))


def _what_was_found(dataset: Dataset, kind: str, words: Words) -> str:
    """One kind of the doctor's findings, without names of photos, which are nobody's business."""
    findings = [finding for finding in dataset.findings if finding.kind == kind]
    first, images = findings[0], sum(bool(finding.file) for finding in findings)
    texts = {"kind": words.name(kind).replace("_", " "), "effect": words.name(first.effect)}
    if images:
        return words("found_in", images=images, count=len(dataset), **texts)
    return words("found", value=f"{first.value:g}", limit=f"{first.threshold:g}", **texts)


def _prompts(material: Material) -> Section:
    words = material.words
    points = [f"{name}: {text}" for name, text in material.prompts.prompts.items()]
    if material.prompts.negative_prompt:
        points.append(f"{words('negative_prompt')}: {material.prompts.negative_prompt}")
    blocks: list[Block] = [Paragraph(text)] if (text := _sameness(material)) else []
    return Section("prompts", words("prompts"), (*blocks, Points(tuple(points))))


def _sameness(material: Material) -> str:
    """Whether all experiments were given the same, as far as the images' records tell."""
    made: dict[str, dict[str, set[Any]]] = {}
    for image in material.images:
        if image.prompt_name in material.prompts.prompts:
            for what, value in _setting(image).items():
                made.setdefault(what, {}).setdefault(image.experiment, set()).add(value)
    different = [what for what, values in made.items() if len(set(map(frozenset, values.values()))) > 1]
    if not made or len(next(iter(made.values()))) < 2:
        return ""
    words = material.words
    if not different:
        return words("prompts_all")
    return words("prompts_differ", what=", ".join(words.name(what) for what in different))


def _setting(image: ImageRecord) -> dict[str, Any]:
    return {
        "prompts": (image.prompt_name, image.prompt),
        "seeds": image.seed,
        "sampler": image.sampler,
        "steps": image.num_inference_steps,
        "guidance_scale": image.guidance_scale,
        "negative prompt": image.negative_prompt,
    }


def _experiments(
    material: Material, key: str, experiments: Sequence[Experiment], *, varied: str = ""
) -> Section | None:
    """Experiments of one kind: hyperparameters, what the training took, curves, warnings, and the images."""
    if not experiments:
        return None
    words, title = material.words, material.words(key)
    shared = words("flags_of_one" if len(experiments) == 1 else "flags_shared")
    if varied:
        shared = words("differ_in", count=len(experiments), what=words(f"what_{varied}")) + " " + shared
    photos = material.dataset.images if material.dataset is not None and not varied else None
    took = Numbers(material.training(experiments), words("training_table", title=title))
    blocks: list[Block] = [Paragraph(shared), Flags(shared_flags(experiments)), took]
    if curve := loss_curves(experiments, ordered=bool(varied), language=words.language):
        blocks.append(Plot(f"loss_{key}", curve, words("loss_curves", title=title)))
    unusual = [one for one in experiments if verdict_of(one) not in ("", "moved_usual")]
    if unusual:
        blocks.append(Points(tuple(f"{one.name}: {sentence_of(one, words.language)}" for one in unusual)))
    if varied and (curve := sweep_curves(experiments, varied, material.measurements, words)):
        blocks.append(Plot(f"measured_{key}", curve, words("along", title=title)))
    pictures = material.table(experiments, reference=photos)
    blocks.append(Pictures(pictures, words("pictures_table", title=title)))
    return Section(key, title, tuple(blocks))


def _comparison(material: Material) -> Section | None:
    """The best of each method beside each other, photos and base model first."""
    chosen = [one for one in material.experiments if one.name in material.best.values()]
    if len(chosen) < 2:
        return None
    words, best = material.words, material.best
    why = [best.get("why", ""), words("compared_pair", dreambooth=best["dreambooth"], lora=best["lora"])]
    photos = material.dataset.images if material.dataset is not None else None
    pictures = material.table(chosen, columns="experiments", reference=photos)
    caption = words("pictures_table", title=words("comparison"))
    blocks = (Paragraph(" ".join(filter(None, why))), Pictures(pictures, caption))
    return Section("comparison", words("comparison"), blocks)


def _scores(material: Material) -> Section | None:
    """What was measured of all, how, and what follows from it by the rule; None where nothing was."""
    words, scores = material.words, material.scores
    if not material.measurements and not scores.tallies:
        return None
    rows = [{"experiment": name, **material.measurements[name]} for name in _measured(material)]
    shown = scores.table(words.language) if scores.tallies else figures(rows, language=words.language)
    blocks: list[Block] = [Paragraph(material.note)] if material.note else _note(material)
    blocks.append(Numbers(shown, words("scores_table")))
    if notes := scores.notes(words.language):
        blocks.append(Points(tuple(notes)))
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    if any(name in fidelity for name in likeness):
        blocks.append(Plot("tradeoff", picture(tradeoff(scores, words.language)), words("tradeoff")))
    if scores.eligible:
        choice = recommend(scores, language=words.language)
        blocks.append(Paragraph(f"{choice.sentence} {words('chosen_by', rule=choice.rule)}"))
    return Section("scores", words("scores"), tuple(blocks))


def _measured(material: Material) -> list[str]:
    """Names of what was measured: the base model, the experiments in their order, controlled images."""
    names = dict.fromkeys([BASE, *(one.name for one in material.experiments), *material.measurements])
    return [name for name in names if material.measurements.get(name)]


def _note(material: Material) -> list[Block]:
    """What each measure means, and by which model it was taken."""
    words, scores = material.words, material.scores
    shown = [name for name in MEASURES if any(name in one.figures for one in scores.tallies.values())]
    if not shown:
        return []
    tally = next(iter(scores.tallies.values()))
    models = ", ".join(
        words("scores_model", name=one["name"], source=words.name(one["source"]))
        for one in tally.models
        if "revision" in one
    )
    meanings = tuple(f"{words.name(name)}: {words.name(MEASURES[name])}" for name in shown)
    return [Points(meanings), Paragraph(words("scores_models", models=models))]


def _conclusion(material: Material, rates: Sequence[Experiment], ranks: Sequence[Experiment]) -> Section:
    names = [one.name for one in material.experiments]
    counts = [sum(image.experiment == name for image in material.images) for name in names]
    paragraphs = conclusion(
        material.experiments,
        rates,
        ranks,
        material.measurements,
        pair=material.best,
        controlled=control_costs(material),
        drift=material.scores.of("PRES"),
        images=min(counts),
        words=material.words,
    )
    draft = "\n\n".join(map(markdown_text, paragraphs))
    return Section("conclusion", material.words("conclusion"), (Place("conclusion", draft=draft),))


def _reproducibility(material: Material) -> Section:
    """What somebody needs who wants these results again: versions, machine, seeds, times and sizes."""
    words, records = material.words, [one.record for one in material.experiments]
    environments = [record.get("environment") or {} for record in records]
    machine = dict.fromkeys(name for environment in environments for name in environment)
    rows = {
        "base model": _all(plain_place(str(record.get("base", ""))) for record in records),
        "fingerprint of its weights": _all(record.get("base_fingerprint") for record in records),
        "dataset": _dataset_fingerprint(material),
        "seed of the training": _all(one.hyperparameters.seed for one in material.experiments),
        "images": _how_images_were_made(material),
        **{name: _all(environment.get(name) for environment in environments) for name in machine},
        **_cost(material, records),
    }
    table = [{"what": words.name(name), "value": value} for name, value in rows.items() if value]
    blocks = (Numbers(figures(table, language=words.language), words("reproducibility_table")),)
    return Section("reproducibility", words("reproducibility"), blocks)


def _dataset_fingerprint(material: Material) -> str:
    dataset = material.dataset
    if dataset is None:
        return ""
    return material.words("dataset_is", count=len(dataset), fingerprint=dataset.fingerprint)


def _how_images_were_made(material: Material) -> str:
    if not (images := material.images):
        return ""
    return material.words(
        "images_made",
        seeds=_all(sorted({image.seed for image in images})),
        sampler=_all(image.sampler for image in images),
        steps=_all(image.num_inference_steps for image in images),
        guidance=_all(number(image.guidance_scale) for image in images),
    )


def _cost(material: Material, records: Sequence[dict[str, Any]]) -> dict[str, str]:
    words = material.words
    rows = {}
    if times := [record["seconds"] for record in records if "seconds" in record]:
        value = duration(sum(times), words.language)
        rows["training time"] = words("for_experiments", value=value, count=len(times))
    if memory := [record["peak_memory_gb"] for record in records if "peak_memory_gb" in record]:
        rows["peak memory"] = words("gigabytes", value=f"{max(memory):.3g}")
    if sizes := [record["size_mb"] for record in records if "size_mb" in record]:
        value = words("megabytes", value=f"{sum(sizes):.3g}")
        rows["size on disk"] = words("for_experiments", value=value, count=len(sizes))
    return rows


def _all(values: Iterable[Any]) -> str:
    """Distinct values, in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))
