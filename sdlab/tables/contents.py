"""What stands in a table's cells, and the table as HTML, Markdown, PDF and PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sdlab import thumbnails, typeset
from sdlab.files import write_bytes
from sdlab.templates import markdown_text, render
from sdlab.words import Words

if TYPE_CHECKING:
    from PIL import Image

SIDE = 260  # pixels of a cell's picture; shown smaller, so that it is sharp on fine screens
MAX_BYTES = 900_000  # of a table's pictures
IN_A_NOTEBOOK = 80_000  # several tables are kept in one file of at most 500 kB
NOTEBOOK_PAGE = 860  # CSS pixels of a cell's output in JupyterLab in a window of 1280
HEADINGS = 150  # CSS pixels of the first column
LOOKED_AT = 128  # CSS pixels: a smaller image shows no face
FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG"}


@dataclass(frozen=True)
class Heading:
    """Name of a row or column with smaller lines under it; `text` is long and may be cut short."""

    title: str
    details: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Cell:
    """Up to four pictures of one experiment and one prompt, or what to run to get them.

    Args:
        name: of this cell alone; the parts become the folder and name of its picture.
        whole: it has as many pictures as it should, whatever the other cells have.
    """

    name: str | tuple[str, ...]
    alt: str
    images: tuple[Path, ...] = ()
    hint: str = ""
    whole: bool = False


@dataclass(frozen=True)
class Table:
    """A table of pictures. Shown by a notebook as it is; saved by `save` as Markdown, HTML, PNG and PDF.

    Taught in: notebooks/02
    """

    rows: tuple[Heading, ...]
    columns: tuple[Heading, ...]
    cells: tuple[tuple[Cell, ...], ...]  # one tuple of cells per row
    images_per_cell: int = 4
    language: str = "en"
    notes: tuple[str, ...] = ()  # what must be said under it, such as which images were left out

    def __post_init__(self) -> None:
        if self.images_per_cell not in (1, 2, 4):
            raise ValueError(f"images_per_cell must be 1, 2 or 4, got {self.images_per_cell}.")

    def transposed(self) -> Table:
        """The same table with rows and columns exchanged."""
        cells = tuple(zip(*self.cells, strict=True))
        return replace(self, rows=self.columns, columns=self.rows, cells=cells)

    def without_texts(self) -> Table:
        """The same table without the prompts under their names, which what it stands in has said."""
        rows, columns = (
            tuple(replace(one, text="") for one in headings) for headings in (self.rows, self.columns)
        )
        return replace(self, rows=rows, columns=columns)

    def with_hints(self, change: Callable[[str], str]) -> Table:
        """The same table with other words where images are missing."""
        cells = (tuple(replace(cell, hint=change(cell.hint)) for cell in row) for row in self.cells)
        return replace(self, cells=tuple(cells))

    @property
    def size(self) -> str:
        """Rows, columns, and how many cells lack images, in words."""
        missing = sum(bool(cell.hint) for row in self.cells for cell in row)
        lacking = f", {missing} cells lack images" if missing else ""
        return f"{len(self.rows)} rows × {len(self.columns)} columns{lacking}"

    def __repr__(self) -> str:
        return f"Table({self.size})"

    def _repr_html_(self) -> str:
        return self.html(max_bytes=IN_A_NOTEBOOK)

    def html(self, width: int | None = None, max_bytes: int = MAX_BYTES) -> str:
        """The table as HTML that carries its pictures in itself; it scrolls sideways, the first column stays.

        Args:
            width: of a cell's picture in CSS pixels; None takes what a notebook's page has room for.
            max_bytes: what the pictures may take; their quality goes down until they fit.
        """
        pictures = self._encoded(max_bytes * 3 // 4)  # base64 writes three bytes as four letters
        uris = {name: thumbnails.data_uri(content) for name, content in pictures.items()}
        width = width or self.fitting(NOTEBOOK_PAGE)
        words = Words(self.language)
        return render("table.html", table=self, uris=uris, width=width, words=words)

    def markdown(self, folder: str | Path, pictures: str = "pictures", **options: Any) -> str:
        """The table as Markdown with relative links; its pictures are written below `folder`."""
        text, files = self.markdown_and_pictures(pictures, **options)
        for link, content in files.items():
            write_bytes(Path(folder) / link, content)
        return text

    def markdown_and_pictures(
        self, pictures: str = "pictures", width: int = 150, max_bytes: int = MAX_BYTES
    ) -> tuple[str, dict[str, bytes]]:
        """The Markdown text, and link to content of its pictures; nothing is written."""
        encoded = self._encoded(max_bytes)
        paths = {name: name if isinstance(name, str) else "/".join(name) for name in encoded}
        files = {name: f"{pictures}/{path}_{self.images_per_cell}.webp" for name, path in paths.items()}
        links = {name: quote(file) for name, file in files.items()}
        text = render("table.md", table=self, links=links, width=width)
        return text, {files[name]: content for name, content in encoded.items()}

    def save(self, path: str | Path, title: str = "") -> Path:
        """Writes .png, .webp, .jpg, .pdf, .html, or .md with its pictures beside it; `title` stands above."""
        path = Path(path)
        if path.suffix == ".html":
            content = render("page.html", title=title or path.stem, table=self).encode()
        elif path.suffix == ".md":
            head = f"# {markdown_text(title)}\n\n" if title else ""
            content = (head + self.markdown(path.parent, f"{path.stem}_pictures")).encode()
        elif path.suffix == ".pdf" or path.suffix in FORMATS:
            content = self._typeset(title, path)
        else:
            raise ValueError(
                f"a table's file must end with .png, .webp, .jpg, .pdf, .html or .md, got {path.name!r}."
            )
        return write_bytes(path, content)

    def _typeset(self, title: str, path: Path) -> bytes:
        """A PDF of A4 pages, or one picture with readable labels."""
        on_pages, blocks = path.suffix == ".pdf", [{"kind": "pictures", "text": "", **self.block()}]
        if title:
            blocks.insert(0, {"kind": "heading", "level": 1, "text": title})
        if on_pages:
            points = [f"{heading.title}: {heading.text}" for heading in self.texts]
            blocks.append({"kind": "points", "points": points})
        made = typeset.pages(title or path.stem, blocks, self.language, sheet=not on_pages)
        if path.suffix in (".pdf", ".png"):
            return made
        buffer = io.BytesIO()
        thumbnails.opened(io.BytesIO(made)).save(buffer, FORMATS[path.suffix], quality=88)
        return buffer.getvalue()

    def block(self) -> dict[str, Any]:
        """The table as templates/pages.typ takes it."""
        cells = [
            [{"picture": self._pictures.get(cell.name), "hint": cell.hint} for cell in row]
            for row in self.cells
        ]
        half = self.images_per_cell == 2 and self._across == 2
        headings = {name: list(map(asdict, getattr(self, name))) for name in ("rows", "columns")}
        return {"bare": self.bare, "half": half, **headings, "cells": cells, "notes": self.notes}

    def picture(self, cell: Cell) -> Image.Image | None:
        """The cell's images as one picture, 260 pixels wide, or None where there is none."""
        images = thumbnails.readable(cell.images)
        count = (0, 1, 2, 4, 4)[len(images)] if cell.whole else self.images_per_cell
        return thumbnails.grid(images, SIDE, self._across, count) if images else None

    def fitting(self, page: int) -> int:
        """A width of the cells with which all columns are seen at once, as far as 100 pixels go."""
        most = 180 if self.images_per_cell == 1 else SIDE
        headings = 0 if self.bare else HEADINGS
        return min(most, max(100, (page - headings) // len(self.columns) - 12))

    @property
    def bare(self) -> bool:
        """Whether no row has a heading, as in a sheet of photos."""
        return not any(heading.title for heading in self.rows)

    @property
    def texts(self) -> list[Heading]:
        """Headings with a long text: the prompts, which stand under the table in full."""
        return [heading for heading in (*self.rows, *self.columns) if heading.text]

    @property
    def _across(self) -> int:
        """Two images stand above each other where they would be too small side by side."""
        narrow = self.fitting(NOTEBOOK_PAGE) < 2 * LOOKED_AT
        return 1 if self.images_per_cell == 2 and narrow else 2

    @cached_property
    def _pictures(self) -> dict[Any, Image.Image]:
        """Pictures of all cells that have one, read once for all forms of the table."""
        cells = {cell.name: cell for row in self.cells for cell in row}
        with ThreadPoolExecutor() as threads:  # Pillow reads and scales on several processors at once
            pictures = zip(cells, threads.map(self.picture, cells.values()), strict=True)
            return {name: picture for name, picture in pictures if picture is not None}

    def _encoded(self, max_bytes: int) -> dict[Any, bytes]:
        """Pictures of all cells as WebP, in the best quality that fits."""
        encoded: list[bytes] = []
        for side, quality in ((SIDE, 80), (SIDE, 55), (200, 50), (140, 40), (90, 35)):
            small = partial(thumbnails.webp, quality=quality, side=side)
            with ThreadPoolExecutor() as threads:
                encoded = list(threads.map(small, self._pictures.values()))
            if sum(map(len, encoded)) < max_bytes:
                break
        return dict(zip(self._pictures, encoded, strict=True))
