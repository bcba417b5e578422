"""From what is on disk to a table: which images stand in which cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from sdlab.experiment import Experiment
from sdlab.images import load_images
from sdlab.prompts import PromptSet
from sdlab.tables.captions import Heading, captions
from sdlab.tables.contents import Cell, Table
from sdlab.words import Words

Side = Literal["experiments", "prompts"]


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
    _check(names, images_per_cell, rows, columns)
    say = Words(language)
    headings = captions(names, root, language)
    cells = [_cells(name, prompts, Path(results), images_per_cell, say) for name in names]
    photos = _reference_photos(reference)
    if photos:
        headings = [Heading(say("photos"), (say("of_the_subject"),)), *headings]
        cells = [_photo_cells(photos, len(prompts.prompts), images_per_cell, say), *cells]
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
    """The prompts that images were made from.

    Args:
        experiments: names; the first that has images is asked.
        results: folder of the images.

    Returns:
        The prompt set.

    Raises:
        ValueError: there are no images.
    """
    for name in experiments:
        if images := load_images(name, results=results):
            return PromptSet({i.prompt_name: i.prompt for i in images}, images[0].negative_prompt)
    raise ValueError(f"no experiment has images in {results}. Run `sdlab generate` first.")


def _check(names: list[str], images_per_cell: int, rows: str | None, columns: str | None) -> None:
    if not names:
        raise ValueError("a table needs at least one experiment. Name some, or take sdlab.experiment.find().")
    if images_per_cell not in (1, 2, 4):
        raise ValueError(f"images_per_cell must be 1, 2 or 4, got {images_per_cell}.")
    for what, side in (("rows", rows), ("columns", columns)):
        if side not in (None, "experiments", "prompts"):
            raise ValueError(f"{what} must be 'experiments' or 'prompts', got {side!r}.")
    if rows is not None and rows == columns:
        raise ValueError(f"rows and columns must differ, both are {rows!r}. Leave one of them out.")


def _cells(
    name: str, prompts: PromptSet, results: Path, images_per_cell: int, say: Words
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
            hint = say(key, having=len(images), wanted=images_per_cell, command=command)
        cells.append(Cell(f"{name}_{prompt}", f"{name}, {prompt}: {text}", images, hint))
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


def _photo_cells(photos: list[Path], count: int, images_per_cell: int, say: Words) -> tuple[Cell, ...]:
    """Other photos of the subject in every cell, from the beginning again where they run out."""
    cells = []
    for index in range(count):
        first = index * images_per_cell
        shown = tuple(photos[(first + n) % len(photos)] for n in range(images_per_cell))
        cells.append(Cell(f"photos_{index + 1}", say("photos_of_the_subject"), shown))
    return tuple(cells)
