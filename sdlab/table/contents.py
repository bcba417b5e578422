"""What stands in a table's cells, and the table as HTML and Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from sdlab import thumbnails
from sdlab.atomic import write_bytes
from sdlab.experiment import Experiment
from sdlab.generate import load_images
from sdlab.prompts import PromptSet
from sdlab.table.captions import Heading, captions
from sdlab.templates import markdown_text, render

if TYPE_CHECKING:
    from PIL import Image

SIDE = 260  # pixels of a cell's picture; shown smaller, so that it is sharp on fine screens
MAX_BYTES = 900_000


@dataclass(frozen=True)
class Cell:
    """Up to four pictures of one experiment and one prompt, or what to run to get them."""

    name: str
    alt: str
    images: tuple[Path, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table of pictures. Shown by a notebook as it is; saved by `html`, `markdown` and `png`.

    Args:
        rows, columns: the headings.
        cells: one tuple of cells per row.
        images_per_cell: 1, 2 or 4.

    Taught in: notebooks/02
    """

    rows: tuple[Heading, ...]
    columns: tuple[Heading, ...]
    cells: tuple[tuple[Cell, ...], ...]
    images_per_cell: int = 4

    def transposed(self) -> Table:
        """The same table with rows and columns exchanged."""
        cells = tuple(zip(*self.cells, strict=True))
        return replace(self, rows=self.columns, columns=self.rows, cells=cells)

    def html(self, width: int = 180, max_bytes: int = MAX_BYTES, *, texts: bool = True) -> str:
        """The table as HTML that carries its pictures in itself.

        Args:
            width: width of a cell's picture on the page, in CSS pixels.
            max_bytes: what the pictures may take; their quality goes down until they fit.
            texts: whether the prompts stand in full under the table.

        Returns:
            HTML for a notebook cell or a page. It scrolls sideways, the first column stays.
        """
        pictures = self._encoded(max_bytes * 3 // 4)  # base64 writes three bytes as four letters
        uris = {name: thumbnails.data_uri(content) for name, content in pictures.items()}
        return render("table.html", table=self, uris=uris, width=width, texts=self.texts if texts else [])

    def _repr_html_(self) -> str:
        return self.html()

    @property
    def size(self) -> str:
        """Rows, columns, and how many cells lack images, in words."""
        missing = sum(bool(cell.hint) for row in self.cells for cell in row)
        lacking = f", {missing} cells lack images" if missing else ""
        return f"{len(self.rows)} rows × {len(self.columns)} columns{lacking}"

    def __repr__(self) -> str:
        return f"Table({self.size})"

    def markdown(
        self,
        folder: str | Path,
        pictures: str = "pictures",
        width: int = 150,
        max_bytes: int = MAX_BYTES,
        *,
        texts: bool = True,
    ) -> str:
        """The table as Markdown with relative links; its pictures are written below `folder`.

        Args:
            folder: where the Markdown file will lie.
            pictures: folder for the pictures, relative to `folder`.
            width: width of a picture on the page.
            max_bytes: what the pictures may take; their quality goes down until they fit.
            texts: whether the prompts stand in full under the table.

        Returns:
            The Markdown text.
        """
        links = {}
        for name, content in self._encoded(max_bytes).items():
            link = f"{pictures}/{name}_{self.images_per_cell}.webp"
            write_bytes(Path(folder) / link, content)
            links[name] = quote(link)
        first = [] if self.bare else [" "]
        lines = ["|".join(["", *first, *(_head(heading) for heading in self.columns), ""])]
        lines.append("|".join(["", *("---" for _ in first), *(":-:" for _ in self.columns), ""]))
        for heading, cells in zip(self.rows, self.cells, strict=True):
            shown = [_markdown_cell(cell, links.get(cell.name), width) for cell in cells]
            lines.append("|".join(["", *([] if self.bare else [_head(heading)]), *shown, ""]))
        if texts and self.texts:
            lines += ["", *(f"- **{markdown_text(h.title)}**: {markdown_text(h.text)}" for h in self.texts)]
        return "\n".join(lines) + "\n"

    def png(self, path: str | Path, title: str = "") -> Path:
        """The table as one picture with readable labels.

        Args:
            path: the file to write; `.webp` and `.jpg` are taken too and are a tenth of the size.
            title: line above the table.

        Returns:
            The path.
        """
        from sdlab.table.drawn import draw_table

        path = Path(path)
        formats = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG"}
        if path.suffix not in formats:
            raise ValueError(
                f"a table's file must end with .png, .webp, .jpg, .html or .md, got {path.name!r}."
            )
        buffer = io.BytesIO()
        draw_table(self, title).save(buffer, formats[path.suffix], quality=88)
        return write_bytes(path, buffer.getvalue())

    def save(self, path: str | Path, title: str = "") -> Path:
        """The table as a file; its name's ending says in what form.

        Args:
            path: ends with .png, .webp, .jpg, .html or .md; a Markdown file's pictures lie beside it.
            title: line above the table, in a picture.

        Returns:
            The path.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        if path.suffix == ".html":
            head = f"<!doctype html><meta charset=utf-8><title>{path.stem}</title>"
            return write_bytes(path, (head + self.html()).encode())
        if path.suffix == ".md":
            return write_bytes(path, self.markdown(path.parent, f"{path.stem}_pictures").encode())
        return self.png(path, title)

    def picture(self, cell: Cell, side: int = SIDE) -> Image.Image | None:
        """The cell's images as one picture, or None where there is none."""
        if not cell.images:
            return None
        images = [thumbnails.opened(path) for path in cell.images]
        if len(images) < self.images_per_cell:
            from PIL import Image

            empty = Image.new("RGB", images[0].size, "#dddddd")
            images += [empty] * (self.images_per_cell - len(images))
        return thumbnails.square(images, side)

    @property
    def bare(self) -> bool:
        """Whether no row has a heading, as in a sheet of photos."""
        return not any(heading.title for heading in self.rows)

    @property
    def texts(self) -> list[Heading]:
        """Headings with a long text: the prompts, which stand under the table in full."""
        return [heading for heading in (*self.rows, *self.columns) if heading.text]

    def _encoded(self, max_bytes: int) -> dict[str, bytes]:
        """Pictures of all cells as WebP, in the best quality that fits."""
        pictures = {cell.name: self.picture(cell) for row in self.cells for cell in row if cell.images}
        encoded: dict[str, bytes] = {}
        for side, quality in ((SIDE, 80), (SIDE, 55), (200, 50), (140, 40), (90, 35)):
            encoded = {
                name: thumbnails.webp(thumbnails.fitted(picture, side), quality)
                for name, picture in pictures.items()
                if picture is not None
            }
            if sum(map(len, encoded.values())) < max_bytes:
                break
        return encoded


def table(
    experiments: Iterable[str | Experiment],
    prompts: PromptSet,
    *,
    results: str | Path = "results",
    root: str | Path = "experiments",
    images_per_cell: int = 4,
    rows: Literal["experiments", "prompts"] = "experiments",
    reference: str | Path | Sequence[str | Path] | None = None,
) -> Table:
    """Put the images of experiments side by side, one prompt beside the other.

    Args:
        experiments: names or experiments; "base" is the base model itself.
        prompts: the prompt set that the images were generated with.
        results: folder that `generate` wrote to.
        root: folder of the experiments, for the hyperparameters under the names.
        images_per_cell: 1, 2 or 4; four make a 2×2 picture as in homework A.
        rows: what stands in the rows; the other stands in the columns.
        reference: a photo of the subject, several, or a folder of them, as the first row or column.

    Returns:
        The table. A cell without images says what to run.

    Raises:
        ValueError: no experiment, or another number of images per cell.

    Taught in: notebooks/02
    """
    names = [entry if isinstance(entry, str) else entry.name for entry in experiments]
    _check(names, images_per_cell, rows)
    headings = captions(names, root)
    cells = [_cells(name, prompts, Path(results), images_per_cell) for name in names]
    photos = _reference_photos(reference)
    if photos:
        headings = [Heading("photos", ("of the subject",)), *headings]
        cells = [_photo_cells(photos, len(prompts.prompts), images_per_cell), *cells]
    whole = Table(
        rows=tuple(headings),
        columns=tuple(Heading(name, text=text) for name, text in prompts.prompts.items()),
        cells=tuple(cells),
        images_per_cell=images_per_cell,
    )
    return whole if rows == "experiments" else whole.transposed()


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


def _check(names: list[str], images_per_cell: int, rows: str) -> None:
    if not names:
        raise ValueError("a table needs at least one experiment. Name some, or take sdlab.experiment.find().")
    if images_per_cell not in (1, 2, 4):
        raise ValueError(f"images_per_cell must be 1, 2 or 4, got {images_per_cell}.")
    if rows not in ("experiments", "prompts"):
        raise ValueError(f"rows must be 'experiments' or 'prompts', got {rows!r}.")


def _cells(name: str, prompts: PromptSet, results: Path, images_per_cell: int) -> tuple[Cell, ...]:
    """One experiment's cells; an image that its record says was made from other words is not shown."""
    said = {record.path.name: record.prompt for record in load_images(name, results=results)}
    cells = []
    for prompt, text in prompts.prompts.items():
        wanted = [results / name / f"{prompt}_img{n}.png" for n in range(1, images_per_cell + 1)]
        there = [path for path in wanted if path.is_file()]
        images = tuple(path for path in there if said.get(path.name, text) == text)
        hint = ""
        if len(images) < images_per_cell:
            having = f"{len(images)} of {images_per_cell} images" if images else "no images yet"
            having = "images of another prompt" if len(images) < len(there) else having
            hint = f"{having}: run sdlab generate {name}"
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


def _photo_cells(photos: list[Path], count: int, images_per_cell: int) -> tuple[Cell, ...]:
    """Other photos of the subject in every cell, from the beginning again where they run out."""
    cells = []
    for index in range(count):
        first = index * images_per_cell
        shown = tuple(photos[(first + n) % len(photos)] for n in range(images_per_cell))
        cells.append(Cell(f"photos_{index + 1}", "photos of the subject", shown))
    return tuple(cells)


def _head(heading: Heading) -> str:
    title = f"**{markdown_text(heading.title)}**" if heading.title else ""
    return " " + "<br>".join([title, *map(markdown_text, heading.details)]) + " "


def _markdown_cell(cell: Cell, link: str | None, width: int) -> str:
    parts = [f'<img src="{link}" width="{width}" alt="{markdown_text(cell.alt)}">'] if link else []
    return " " + "<br>".join(parts + ([markdown_text(cell.hint)] if cell.hint else [])) + " "
