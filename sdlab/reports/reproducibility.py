"""The reproducibility card: versions, machine, seeds, times, memory and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdlab.config import number
from sdlab.images import load_images
from sdlab.reports.blocks import Numbers, Section
from sdlab.reports.material import Material
from sdlab.tables import duration, figures
from sdlab.tables.captions import plain_place


def reproducibility(material: Material) -> Section:
    """What somebody needs who wants these results again.

    Args:
        material: what is on disk.

    Returns:
        A section with one table.
    """
    say = material.say
    rows = {
        **_what_was_trained(material),
        **_images(material),
        **_machine([one.record.get("environment") or {} for one in material.experiments]),
        **_cost(material),
    }
    table = [{"what": name, "value": value} for name, value in rows.items() if value]
    blocks = (Numbers(figures(table, language=say.language), say("reproducibility_table")),)
    return Section("reproducibility", say("reproducibility"), blocks)


def _what_was_trained(material: Material) -> dict[str, str]:
    records = [one.record for one in material.experiments]
    rows = {
        "base model": _all(plain_place(str(record.get("base", ""))) for record in records),
        "fingerprint of its weights": _all(record.get("base_fingerprint") for record in records),
    }
    if (dataset := material.dataset) is not None:
        rows["dataset"] = material.say("dataset_is", count=len(dataset), fingerprint=dataset.fingerprint)
    rows["seed of the training"] = _all(one.hyperparameters.seed for one in material.experiments)
    return rows


def _images(material: Material) -> dict[str, str]:
    images = [
        image for one in material.experiments for image in load_images(one.name, results=material.results)
    ]
    if not images:
        return {}
    text = material.say(
        "images_made",
        seeds=_all(sorted({image.seed for image in images})),
        sampler=_all(image.sampler for image in images),
        steps=_all(image.num_inference_steps for image in images),
        guidance=_all(number(image.guidance_scale) for image in images),
    )
    return {"images": text}


def _machine(environments: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(name for environment in environments for name in environment)
    return {name: _all(environment.get(name) for environment in environments) for name in names}


def _cost(material: Material) -> dict[str, str]:
    say, records = material.say, [one.record for one in material.experiments]
    rows = {}
    if times := [record["seconds"] for record in records if "seconds" in record]:
        value = duration(sum(times), say.language)
        rows["training time"] = say("for_experiments", value=value, count=len(times))
    if memory := [record["peak_memory_gb"] for record in records if "peak_memory_gb" in record]:
        rows["peak memory"] = say("gigabytes", value=f"{max(memory):.3g}")
    if sizes := [record["size_mb"] for record in records if "size_mb" in record]:
        value = say("megabytes", value=f"{sum(sizes):.3g}")
        rows["size on disk"] = say("for_experiments", value=value, count=len(sizes))
    return rows


def _all(values: Iterable[Any]) -> str:
    """Distinct values, in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))
