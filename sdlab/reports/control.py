"""The section on ControlNet: what the control images carry over, through each experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdlab.images import ImageRecord
from sdlab.reports.blocks import Block, Paragraph, Pictures, Points, Section
from sdlab.reports.material import Material
from sdlab.tables import control_table
from sdlab.tables.captions import BASE
from sdlab.words import Words


def control_section(material: Material) -> Section | None:
    """Tables of control image, control map and images; None where nothing was made with control.

    Experiments beside each other as in homework A, then prompts beside each other for each experiment as in
    homework B, then scales.
    """
    images, words = material.controlled, material.words
    if not images:
        return None
    kinds = ", ".join(dict.fromkeys(one["kind"] for image in images for one in image.control))
    blocks: list[Block] = [Paragraph(words("control_what", kinds=kinds)), Points(_settings(images, words))]
    usual = [image for image in images if _scale(image) == _scale(images[0])]
    names = list(dict.fromkeys(image.experiment for image in usual))
    prompt = usual[0].prompt_name
    if len(names) > 1:
        first = [image for image in usual if image.prompt_name == prompt]
        caption = words("control_by_experiment", prompt=prompt)
        blocks.append(_table(material, first, caption, columns="experiment"))
    for name in [name for name in names if name != BASE] or names:
        mine = [image for image in usual if image.experiment == name]
        caption = words("control_by_prompt", experiment=name)
        blocks.append(_table(material, mine, caption, columns="prompt"))
    blocks += _scales(material, prompt)
    return Section("control", words("control"), tuple(blocks))


def control_costs(material: Material) -> dict[str, tuple[str, str]]:
    """Folder of controlled images to its experiment and what controlled it, in words."""
    return {
        image.path.parent.name: (image.experiment, _label(image, material.words))
        for image in material.controlled
    }


def _scales(material: Material, prompt: str) -> list[Block]:
    """One table for each experiment, of the controls that it was made with at several scales."""
    blocks: list[Block] = []
    for name in dict.fromkeys(image.experiment for image in material.controlled):
        by_control: dict[tuple[str, ...], list[ImageRecord]] = {}
        for image in material.controlled:
            if image.experiment == name and image.prompt_name == prompt:
                key = tuple(f"{one['kind']} {one['image_sha256']}" for one in image.control)
                by_control.setdefault(key, []).append(image)
        several = [one for one in by_control.values() if len({_scale(image) for image in one}) > 1]
        if several:
            caption = material.words("control_by_scale", experiment=name, prompt=prompt)
            images = [one for some in several for one in some]
            blocks.append(_table(material, images, caption, columns="scale"))
    return blocks


def _table(material: Material, images: Sequence[ImageRecord], caption: str, **options: Any) -> Pictures:
    made = control_table(images, root=material.root, language=material.words.language, **options)
    return Pictures(made, caption)


def _settings(images: Sequence[ImageRecord], words: Words) -> tuple[str, ...]:
    """What the controls were set to, those that differ in the scale alone as one."""
    scales: dict[tuple[str, ...], dict[float, None]] = {}
    for one in (control for image in images for control in image.control):
        start, end = f"{one['start']:g}", f"{one['end']:g}"
        more = ""
        if one["kind"] == "canny" and "low_threshold" in one:
            more = f", low_threshold {one['low_threshold']:g}, high_threshold {one['high_threshold']:g}"
        scales.setdefault((f"{one['kind']}, {one['image']}", start, end, more), {})[one["scale"]] = None
    points = []
    for (kind, start, end, more), values in scales.items():
        scale = ", ".join(f"{value:g}" for value in sorted(values))
        points.append(words("control_settings", kind=kind, scale=scale, start=start, end=end) + more)
    return tuple(points)


def _scale(image: ImageRecord) -> tuple[float, ...]:
    return tuple(one["scale"] for one in image.control)


def _label(image: ImageRecord, words: Words) -> str:
    """`canny`, or `canny + pose, scale 0.5`."""
    kinds = " + ".join(one["kind"] for one in image.control)
    scale = ", ".join(f"{value:g}" for value in _scale(image))
    return kinds + ("" if set(_scale(image)) == {1.0} else ", " + words("scale", scale=scale))
