"""The section on ControlNet: what the control images carry over, through each experiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sdlab.images import ImageRecord
from sdlab.reports.blocks import Section
from sdlab.reports.material import Material
from sdlab.tables import control_table
from sdlab.tables.building import By, grouped, scales_of
from sdlab.tables.captions import BASE
from sdlab.words import Words


def add_control(section: Section, material: Material) -> None:
    """Tables of control image, control map and images.

    Experiments beside each other as in homework A, then prompts beside each other for each experiment as in
    homework B, then scales.
    """
    images, words = material.controlled, material.words
    if not images:
        return

    def add(caption: str, shown: Sequence[ImageRecord], columns: By) -> None:
        made = control_table(shown, columns=columns, root=material.root, language=words.language)
        section.add("pictures", caption, table=made)

    kinds = ", ".join(dict.fromkeys(one["kind"] for image in images for one in image.control))
    section.add("paragraph", words("control_what", kinds=kinds))
    section.add("points", points=_settings(images, words))
    usual = grouped(images, "scale")[scales_of(images[0])]
    prompt, names = usual[0].prompt_name, list(grouped(usual, "experiment"))
    if len(names) > 1:
        caption = words("control_by_experiment", prompt=prompt)
        add(caption, grouped(usual, "prompt")[prompt], "experiment")
    for name, mine in grouped(usual, "experiment").items():
        if name != BASE or names == [BASE]:
            add(words("control_by_prompt", experiment=name), mine, "prompt")
    for name, mine in grouped(grouped(images, "prompt")[prompt], "experiment").items():
        controls = grouped(mine, "control").values()
        several = [image for group in controls if len(grouped(group, "scale")) > 1 for image in group]
        if several:
            add(words("control_by_scale", experiment=name, prompt=prompt), several, "scale")


def control_costs(material: Material) -> dict[str, tuple[str, str]]:
    """Folder of controlled images to its experiment and what controlled it, in words."""
    return {
        image.path.parent.name: (image.experiment, _label(image, material.words))
        for image in material.controlled
    }


def _settings(images: Iterable[ImageRecord], words: Words) -> list[str]:
    """What the controls were set to, those that differ in the scale alone as one."""
    scales: dict[tuple[str, ...], set[float]] = {}
    for one in (control for image in images for control in image.control):
        more = ""
        if one["kind"] == "canny" and "low_threshold" in one:
            more = f", low_threshold {one['low_threshold']:g}, high_threshold {one['high_threshold']:g}"
        alike = f"{one['kind']}, {one['image']}", f"{one['start']:g}", f"{one['end']:g}", more
        scales.setdefault(alike, set()).add(one["scale"])
    return [
        words("control_settings", kind=kind, scale=_listed(sorted(found)), start=start, end=end) + more
        for (kind, start, end, more), found in scales.items()
    ]


def _label(image: ImageRecord, words: Words) -> str:
    """`canny`, or `canny + pose, scale 0.5`."""
    kinds, scales = " + ".join(one["kind"] for one in image.control), scales_of(image)
    return kinds if set(scales) == {1.0} else f"{kinds}, {words('scale', scale=_listed(scales))}"


def _listed(scales: Iterable[float]) -> str:
    return ", ".join(f"{scale:g}" for scale in scales)
