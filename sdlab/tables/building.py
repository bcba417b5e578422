"""From what is on disk to a table: which images stand in which cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from sdlab.experiment import Experiment
from sdlab.images import ImageRecord, load_images
from sdlab.prompts import PromptSet
from sdlab.tables.captions import Heading, captions
from sdlab.tables.contents import Cell, Table
from sdlab.words import Words

Side = Literal["experiments", "prompts"]
By = Literal["control", "scale", "experiment", "prompt"]


def table(
    experiments: Iterable[str | Experiment],
    prompts: PromptSet,
    *,
    results: str | Path = "results",
    root: str | Path = "experiments",
    images_per_cell: int = 4,
    rows: Side | None = None,
    columns: Side | None = None,
    reference: str | Path | Sequence[str | Path] | None = None,
    language: str = "en",
) -> Table:
    """Put the images of experiments side by side, one prompt beside the other.

    Args:
        experiments: names or experiments, in their order; "base" is the base model itself.
        prompts: the prompt set that the images were generated with.
        results: folder that `generate` wrote to.
        root: folder of the experiments, for the hyperparameters under the names.
        images_per_cell: 1, 2 or 4; four make a 2×2 picture as in homework A.
        rows: what stands in the rows, experiments unless `columns` says so; the other stands in the columns.
        columns: the same for the columns: "experiments" puts base, photos and experiments beside each other.
        reference: a photo of the subject, several, or a folder of them, as the first of the experiments.
        language: of captions and hints, "en" or "ru".

    Returns:
        The table. A cell without images says what to run.

    Raises:
        ValueError: no experiment, rows and columns the same, or another number of images per cell.

    Taught in: notebooks/02
    """
    names = [entry if isinstance(entry, str) else entry.name for entry in experiments]
    if not names:
        raise ValueError("a table needs at least one experiment. Name some, or take sdlab.experiment.find().")
    for what, side in (("rows", rows), ("columns", columns)):
        if side not in (None, "experiments", "prompts"):
            raise ValueError(f"{what} must be 'experiments' or 'prompts', got {side!r}.")
    _check(images_per_cell, rows, columns)
    words = Words(language)
    headings = captions(names, root, language)
    cells = [_cells(name, prompts, Path(results), images_per_cell, words) for name in names]
    if photos := _reference_photos(reference):
        headings = [Heading(words("photos"), (words("of_the_subject"),)), *headings]
        cells = [_photo_cells(photos, len(prompts.prompts), images_per_cell, words), *cells]
    whole = Table(
        rows=tuple(headings),
        columns=tuple(Heading(name, text=text) for name, text in prompts.prompts.items()),
        cells=tuple(cells),
        images_per_cell=images_per_cell,
        language=language,
    )
    turned = rows == "prompts" or columns == "experiments"
    return whole.transposed() if turned else whole


def prompts_of(experiments: Iterable[str], *, results: str | Path = "results") -> PromptSet:
    """The prompts that images were made from, of the first experiment that has images."""
    for name in experiments:
        if images := load_images(name, results=results):
            return PromptSet({i.prompt_name: i.prompt for i in images}, images[0].negative_prompt)
    raise ValueError(f"no experiment has images in {results}. Run `sdlab generate` first.")


def photo_table(photos: Sequence[Path], language: str = "en", columns: int = 5) -> Table:
    """Photos in rows, without headings."""
    alt, across = Words(language)("photos_of_the_subject"), range(columns)
    rows = [photos[start : start + columns] for start in range(0, len(photos), columns)]
    cells = [
        tuple(Cell(("photo", path.stem), f"{alt}, {path.stem}", (path,)) for path in row)
        + tuple(Cell("", "") for _ in across[len(row) :])
        for row in rows
    ]
    blank = Heading("")
    return Table(tuple(blank for _ in rows), tuple(blank for _ in across), tuple(cells), 1, language)


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
    if not images or not all(image.control for image in images):
        raise ValueError(
            "a control table needs images that were made with control. "
            "Use generate(..., control=Control(...)); scale 0 shows what is made without."
        )
    _check(images_per_cell, rows, columns)
    if columns == "control":  # control image and control map stand before what they control
        options: dict[str, Any] = {"images_per_cell": images_per_cell, "language": language}
        return control_table(images, rows="control", columns=rows, root=root, **options).transposed()
    names = list(dict.fromkeys(image.experiment for image in images))
    experiments = dict(zip(names, captions(names, root, language), strict=True))
    down, across = _groups(images, rows), _groups(images, columns)
    words, cells = Words(language), []
    for mine in down.values():
        made = []
        for key, column in across.items():
            shared = [image for image in mine if _key(image, columns) == key]
            made.append(_controlled_cell(shared[:images_per_cell], _hint(mine[0], column[0], words)))
        cells.append((*_sources(mine[0], words), *made))
    before = (Heading(words("control_image")), Heading(words("control_map")))
    return Table(
        rows=tuple(_heading(mine, rows, experiments, words) for mine in down.values()),
        columns=(*before, *(_heading(column, columns, experiments, words) for column in across.values())),
        cells=tuple(cells),
        images_per_cell=images_per_cell,
        language=language,
    )


def _check(images_per_cell: int, rows: str | None, columns: str | None) -> None:
    if images_per_cell not in (1, 2, 4):
        raise ValueError(f"images_per_cell must be 1, 2 or 4, got {images_per_cell}.")
    if rows is not None and rows == columns:
        raise ValueError(f"rows and columns must differ, both are {rows!r}. Leave one of them out.")


def _cells(
    name: str, prompts: PromptSet, results: Path, images_per_cell: int, words: Words
) -> tuple[Cell, ...]:
    """One experiment's cells; an image that its record says was made from other words is not shown."""
    said = {record.path.name: record.prompt for record in load_images(name, results=results)}
    cells = []
    for prompt, text in prompts.prompts.items():
        wanted = [results / name / f"{prompt}_img{n}.png" for n in range(1, images_per_cell + 1)]
        there = [path for path in wanted if path.is_file()]
        images = tuple(path for path in there if said.get(path.name, text) == text)
        hint = ""
        if len(images) < images_per_cell:
            key = "some_images" if images else "no_images"
            key = "other_images" if len(images) < len(there) else key
            command = f"sdlab generate {name}"
            hint = words(key, having=len(images), wanted=images_per_cell, command=command)
        cells.append(Cell((name, prompt), f"{name}, {prompt}: {text}", images, hint))
    return tuple(cells)


def _reference_photos(reference: str | Path | Sequence[str | Path] | None) -> list[Path]:
    if reference is None:
        return []
    paths = [Path(reference)] if isinstance(reference, str | Path) else [Path(path) for path in reference]
    photos = []
    for path in paths:
        photos += sorted(path.glob("*.png")) if path.is_dir() else [path]
    if not photos or not all(path.is_file() for path in photos):
        raise ValueError(f"reference must name photos or a folder of PNG images, got {reference!r}.")
    return photos


def _photo_cells(photos: list[Path], count: int, images_per_cell: int, words: Words) -> tuple[Cell, ...]:
    """Other photos of the subject in every cell, from the beginning again where they run out."""
    cells = []
    for index in range(count):
        first = index * images_per_cell
        shown = tuple(photos[(first + n) % len(photos)] for n in range(images_per_cell))
        cells.append(Cell(("photos", str(index + 1)), words("photos_of_the_subject"), shown))
    return tuple(cells)


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


def _heading(images: list[ImageRecord], by: By, experiments: dict[str, Heading], words: Words) -> Heading:
    first = images[0]
    scale = words("scale", scale=", ".join(f"{one['scale']:g}" for one in first.control))
    if by == "experiment":
        return experiments[first.experiment]
    if by == "prompt":
        return Heading(first.prompt_name, text=first.prompt)
    if by == "scale":
        return Heading(scale)
    pictures = tuple(dict.fromkeys(one["image"] for one in first.control))
    same = len({_key(image, "scale") for image in images}) == 1
    return Heading(" + ".join(one["kind"] for one in first.control), (*pictures, *([scale] if same else [])))


def _hint(row: ImageRecord, column: ImageRecord, words: Words) -> str:
    """What to run for an image of this row's control and that column's experiment."""
    kinds = " ".join(f"--kind {one['kind']}" for one in row.control)
    command = f"sdlab control --image {row.control[0]['image']} {kinds} --experiments {column.experiment}"
    return words("no_images", command=command)


def _controlled_cell(images: list[ImageRecord], hint: str) -> Cell:
    if not images:
        return Cell("", "", hint=hint)
    first = images[0]
    folder = first.path.parent.name
    alt = f"{folder}, {first.prompt_name}: {first.prompt}"
    return Cell((folder, first.prompt_name), alt, tuple(image.path for image in images))


def _sources(image: ImageRecord, words: Words) -> tuple[Cell, Cell]:
    """The control image and the control map; of several controls up to four."""
    folder = image.path.parent
    pictures = {one["image_sha256"]: folder / one["reference"] for one in image.control}
    maps = [folder / one["map"] for one in image.control]
    return (
        Cell((folder.name, ".image"), words("control_image"), tuple(pictures.values())[:4], whole=True),
        Cell((folder.name, ".map"), words("control_map"), tuple(maps)[:4], whole=True),
    )
