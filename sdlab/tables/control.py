"""Tables of controlled images: control image, control map, and the images by experiment, prompt or scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sdlab.images import ImageRecord
from sdlab.tables.captions import Heading, captions
from sdlab.tables.contents import Cell, Table
from sdlab.words import Words

By = Literal["control", "scale", "experiment", "prompt"]


def control_table(
    images: Sequence[ImageRecord],
    *,
    rows: By = "control",
    columns: By = "prompt",
    root: str | Path = "experiments",
    images_per_cell: int = 1,
    language: str = "en",
) -> Table:
    """Put controlled images side by side, each row's control image and control map before them.

    Args:
        images: what `generate(…, control=…)` returned, of one call or of several together.
        rows: what stands in the rows: the kinds of control, their scales, experiments or prompts.
        columns: what stands in the columns.
        root: folder of the experiments, for the hyperparameters under the names.
        images_per_cell: 1, 2 or 4.
        language: "en" or "ru".

    Returns:
        The table. A cell shows the first images that belong there, or what to run to get some.

    Raises:
        ValueError: an image without control, rows and columns are the same, or a bad number per cell.

    Source:
        Homework B has kinds in rows and prompts in columns, homework A experiments in columns.
    """
    _check(images, rows, columns, images_per_cell)
    if columns == "control":  # control image and control map stand before what they control
        options: dict[str, Any] = {"images_per_cell": images_per_cell, "language": language}
        return control_table(images, rows="control", columns=rows, root=root, **options).transposed()
    names = dict.fromkeys(image.experiment for image in images)
    experiments = dict(zip(names, captions(list(names), root, language), strict=True))
    down, across = _groups(images, rows), _groups(images, columns)
    say, cells = Words(language), []
    for mine in down.values():
        shared = [[image for image in mine if _key(image, columns) == key] for key in across]
        hints = [_hint(mine[0], column[0], say) for column in across.values()]
        made = [_cell(one, images_per_cell, hint) for one, hint in zip(shared, hints, strict=True)]
        cells.append((*_sources(mine[0], say), *made))
    return Table(
        rows=tuple(_heading(mine, rows, experiments, say) for mine in down.values()),
        columns=(
            Heading(say("control_image")),
            Heading(say("control_map")),
            *(_heading(column, columns, experiments, say) for column in across.values()),
        ),
        cells=tuple(cells),
        images_per_cell=images_per_cell,
        language=language,
    )


def _check(images: Sequence[ImageRecord], rows: str, columns: str, images_per_cell: int) -> None:
    if not images or not all(image.control for image in images):
        raise ValueError(
            "a control table needs images that were made with control. "
            "Use generate(..., control=Control(...)); scale 0 shows what is made without."
        )
    if rows == columns:
        raise ValueError(f"rows and columns must differ, both are {rows!r}. Usual: 'control' and 'prompt'.")
    if images_per_cell not in (1, 2, 4):
        raise ValueError(f"images_per_cell must be 1, 2 or 4, got {images_per_cell}.")


def _groups(images: Sequence[ImageRecord], by: By) -> dict[Any, list[ImageRecord]]:
    """Images by what they have in common: scales from weak to strong, all else as it was made."""
    groups: dict[Any, list[ImageRecord]] = {}
    for image in images:
        groups.setdefault(_key(image, by), []).append(image)
    return dict(sorted(groups.items())) if by == "scale" else groups


def _key(image: ImageRecord, by: By) -> Any:
    if by == "control":
        return tuple((one["kind"], one["image"]) for one in image.control)
    if by == "scale":
        return tuple(one["scale"] for one in image.control)
    return image.experiment if by == "experiment" else image.prompt_name


def _heading(images: list[ImageRecord], by: By, experiments: dict[str, Heading], say: Words) -> Heading:
    first = images[0]
    scale = say("scale", scale=", ".join(f"{one['scale']:g}" for one in first.control))
    if by == "experiment":
        return experiments[first.experiment]
    if by == "prompt":
        return Heading(first.prompt_name, text=first.prompt)
    if by == "scale":
        return Heading(scale)
    pictures = tuple(dict.fromkeys(one["image"] for one in first.control))
    same = len({_key(image, "scale") for image in images}) == 1
    return Heading(" + ".join(one["kind"] for one in first.control), (*pictures, *([scale] if same else [])))


def _hint(row: ImageRecord, column: ImageRecord, say: Words) -> str:
    """What to run for an image of this row's control and that column's experiment."""
    kinds = " ".join(f"--kind {one['kind']}" for one in row.control)
    command = f"sdlab control --image {row.control[0]['image']} {kinds} --experiments {column.experiment}"
    return say("no_images", command=command)


def _cell(images: list[ImageRecord], count: int, hint: str) -> Cell:
    if not images:
        return Cell("", "", hint=hint)
    first = images[0]
    name = f"{first.path.parent.name}_{first.prompt_name}"
    alt = f"{first.path.parent.name}, {first.prompt_name}: {first.prompt}"
    return Cell(name, alt, tuple(image.path for image in images[:count]))


def _sources(image: ImageRecord, say: Words) -> tuple[Cell, Cell]:
    """The control image and the control map; of several controls up to four."""
    folder = image.path.parent
    pictures = {one["image_sha256"]: folder / one["reference"] for one in image.control}
    maps = [folder / one["map"] for one in image.control]
    return (
        Cell(f"{folder.name}_image", say("control_image"), tuple(pictures.values())[:4], whole=True),
        Cell(f"{folder.name}_map", say("control_map"), tuple(maps)[:4], whole=True),
    )
