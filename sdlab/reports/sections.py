"""What the report says, section by section, from what is on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sdlab.config import number
from sdlab.experiment import Experiment
from sdlab.reports.blocks import Section
from sdlab.reports.conclusion import conclusion
from sdlab.reports.control import add_control, control_costs
from sdlab.reports.curves import loss_curves, picture, sweep_curves
from sdlab.reports.flags import shared_flags, sweep_over
from sdlab.reports.material import Material
from sdlab.scores import MEASURES, recommend
from sdlab.scores.plots import tradeoff
from sdlab.tables import figures, photo_table
from sdlab.tables.building import setting_text
from sdlab.tables.captions import plain_place
from sdlab.tables.figures import RECORDED
from sdlab.templates import markdown_text
from sdlab.verdict import sentence_of, verdict_of


def all_sections(material: Material, title: str, author: str) -> list[Section]:
    """The report's sections, those that there is something to say in, each with a place for a remark."""
    words, loras, found = material.words, material.of("lora"), []
    varied = {name: sweep_over(name, loras) for name in ("learning_rate", "rank")}
    others = [one for one in loras if not any(one in some for some in varied.values())]

    def section(key: str) -> Section:
        found.append(Section(key, words(key)))
        return found[-1]

    _add_dataset(section("dataset"), material)
    _add_prompts(section("prompts"), material)
    _add_experiments(section("dreambooth"), material, material.of("dreambooth"))
    for name, experiments in varied.items():
        _add_experiments(section(name), material, experiments, varied=name)
    _add_experiments(section("lora" if others == loras else "more_lora"), material, others)
    _add_elsewhere(section("elsewhere"), material)
    _add_comparison(section("comparison"), material)
    add_control(section("control"), material)
    _add_scores(section("scores"), material)
    _add_conclusion(section("conclusion"), material, varied["learning_rate"], varied["rank"])
    _add_reproducibility(section("reproducibility"), material)
    found = [one for one in found if one.blocks]
    for one in found:
        if one.key != "conclusion":
            one.add("place", key=f"remark-{one.key}")
    opening = Section("title", "")
    lines = [f"# {markdown_text(title)}", markdown_text(words("author", author=author)) if author else ""]
    opening.add("place", key="title", draft="\n\n".join(filter(None, lines)))
    opening.add("place", key="introduction")
    return [opening, *found]


def _add_dataset(section: Section, material: Material) -> None:
    dataset, words = material.dataset, material.words
    if dataset is None:
        return
    text = words("dataset_made", count=len(dataset), side=dataset.resolution)
    if left_out := len(dataset.refused) + len(dataset.dropped):
        text += " " + words("dataset_left_out", count=left_out)
    section.add("paragraph", text)
    photos = photo_table(dataset.images[:10], words.language)
    section.add("pictures", words("dataset_table"), table=photos)
    points = []
    for kind in dict.fromkeys(finding.kind for finding in dataset.findings if finding.level != "note"):
        findings = [finding for finding in dataset.findings if finding.kind == kind]
        first, images = findings[0], sum(bool(finding.file) for finding in findings)
        texts = {"kind": words.name(kind).replace("_", " "), "effect": words.name(first.effect)}
        if images:  # without names of photos, which are nobody's business
            points.append(words("found_in", images=images, count=len(dataset), **texts))
        else:
            points.append(words("found", value=f"{first.value:g}", limit=f"{first.threshold:g}", **texts))
    section.add("paragraph", words("dataset_found") if points else "")
    section.add("points", points=points)


def _add_prompts(section: Section, material: Material) -> None:
    """The prompts, which images are shown, and, as far as records tell, whether all were given the same."""
    words, points = material.words, [f"{name}: {text}" for name, text in material.prompts.prompts.items()]
    if material.prompts.negative_prompt:
        points.append(f"{words('negative_prompt')}: {material.prompts.negative_prompt}")
    said, made = [], dict[str, set[tuple[str, str, int]]]()
    if material.setting is not None:
        said.append(words("setting_of", setting=setting_text(material.setting, words)))
    if material.left_out:
        said.append(words("setting_left_out", count=material.left_out))
    for image in material.images if said else ():
        made.setdefault(image.experiment, set()).add((image.prompt_name, image.prompt, image.seed))
    most = max(made.values(), key=len, default=set())
    if lacking := [name for name, given in made.items() if given != most]:
        said.append(words("prompts_differ", names=", ".join(lacking)))
    elif len(made) > 1:
        said.append(words("prompts_all"))
    section.add("paragraph", " ".join(said))
    section.add("points", points=points)


def _add_experiments(
    section: Section, material: Material, experiments: Sequence[Experiment], *, varied: str = ""
) -> None:
    """Experiments of one kind: hyperparameters, what the training took, curves, warnings, and the images."""
    if not experiments:
        return
    words, title = material.words, section.title
    said = words("flags_of_one" if len(experiments) == 1 else "flags_shared")
    if varied:
        said = words("differ_in", count=len(experiments), what=words(f"what_{varied}")) + " " + said
    section.add("paragraph", said)
    section.add("flags", shared_flags(experiments))
    section.add("numbers", words("training_table", title=title), figures=material.training(experiments))
    curve = loss_curves(experiments, ordered=bool(varied), language=words.language)
    section.add("plot", words("loss_curves", title=title), key=f"loss_{section.key}", image=curve)
    unusual = [one for one in experiments if verdict_of(one) not in ("", "moved_usual")]
    section.add("points", points=[f"{one.name}: {sentence_of(one, words.language)}" for one in unusual])
    if varied:
        curve = sweep_curves(experiments, varied, material.measurements, words)
        section.add("plot", words("along", title=title), key=f"measured_{section.key}", image=curve)
    shown = material.table([one.name for one in experiments], photos=not varied)
    section.add("pictures", words("pictures_table", title=title), table=shown)


def _add_elsewhere(section: Section, material: Material) -> None:
    """Images that no experiment here made."""
    if material.elsewhere:
        section.add("paragraph", material.words("elsewhere_what"))
        caption = material.words("pictures_table", title=section.title)
        section.add("pictures", caption, table=material.table(material.elsewhere))


def _add_comparison(section: Section, material: Material) -> None:
    """The best of each method beside each other, photos and base model first."""
    words, best = material.words, material.best
    chosen = [one.name for one in material.experiments if one.name in best.values()]
    if len(chosen) > 1:
        pair = words("compared_pair", dreambooth=best["dreambooth"], lora=best["lora"])
        section.add("paragraph", f"{best.get('why', '')} {pair}".strip())
        shown = material.table(chosen, photos=True).transposed()
        section.add("pictures", words("pictures_table", title=section.title), table=shown)


def _add_scores(section: Section, material: Material) -> None:
    """What was measured of all, how, and what follows from it by the rule."""
    words, scores, measurements = material.words, material.scores, material.measurements
    if not measurements and not scores.tallies:
        return
    if material.note:
        section.add("paragraph", material.note)
    else:
        _add_meanings(section, material)
    names = [name for name in dict.fromkeys([*material.names, *measurements]) if measurements.get(name)]
    rows = [{"experiment": name, **measurements[name]} for name in names]
    shown = scores.table(words.language) if scores.tallies else figures(rows, language=words.language)
    section.add("numbers", words("scores_table"), figures=shown)
    section.add("points", points=scores.notes(words.language))
    if set(scores.of(scores.likeness)) & set(scores.of("CLIP-T")):
        plot = picture(tradeoff(scores, words.language))
        section.add("plot", words("tradeoff"), key="tradeoff", image=plot)
    if scores.eligible:
        choice = recommend(scores, language=words.language)
        section.add("paragraph", f"{choice.sentence} {words('chosen_by', rule=choice.rule)}")


def _add_meanings(section: Section, material: Material) -> None:
    """What each measure means, and by which model it was taken."""
    words, tallies = material.words, list(material.scores.tallies.values())
    measured = {name for tally in tallies for name in tally.figures}
    known = {name: meaning for name, meaning in MEASURES.items() if name in measured}
    if known:
        section.add("points", points=[f"{words.name(name)}: {words.name(known[name])}" for name in known])
        models = [
            words("scores_model", name=one["name"], source=words.name(one["source"]))
            for one in tallies[0].models
            if "revision" in one
        ]
        section.add("paragraph", words("scores_models", models=", ".join(models)))


def _add_conclusion(
    section: Section, material: Material, rates: Sequence[Experiment], ranks: Sequence[Experiment]
) -> None:
    made = [image.experiment for image in material.images]
    paragraphs = conclusion(
        material.experiments,
        rates,
        ranks,
        material.measurements,
        pair=material.best,
        controlled=control_costs(material),
        drift=material.scores.of("PRES"),
        images=min(made.count(one.name) for one in material.experiments),
        words=material.words,
    )
    section.add("place", key="conclusion", draft="\n\n".join(map(markdown_text, paragraphs)))


def _add_reproducibility(section: Section, material: Material) -> None:
    """What somebody needs who wants these results again: versions, machine, seeds, times and sizes."""
    words, images, dataset = material.words, material.images, material.dataset
    records = [one.record for one in material.experiments]
    environments = [record.get("environment") or {} for record in records]
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
        "seed of the training": _all(one.hyperparameters.seed for one in material.experiments),
        "images": words("images_made", **how) if images else "",
        "LoRAs trained in one pass": _all(n for one in records if (n := one.get("in_one_pass", 1)) > 1),
        **{name: _all(environment.get(name) for environment in environments) for name in machine},
        **_costs(material),
    }
    table = [{"what": words.name(name), "value": value} for name, value in rows.items() if value]
    shown = figures(table, language=words.language)
    section.add("numbers", words("reproducibility_table"), figures=shown)


def _costs(material: Material) -> dict[str, str]:
    """What all trainings took together, and the largest memory."""
    words, took, rows = material.words, material.training(material.experiments), {}
    for name, column in {
        "training time": "time",
        "peak memory": "peak memory",
        "size on disk": "size",
    }.items():
        if column in took:
            values = took[column].dropna()
            whole = RECORDED[column][1](values.max() if column == name else values.sum(), words)
            rows[name] = whole if column == name else words("for_experiments", value=whole, count=len(values))
    return rows


def _all(values: Iterable[Any]) -> str:
    """Distinct values, in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))
