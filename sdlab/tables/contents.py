"""What stands in a table's cells, and the table as HTML and Markdown."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sdlab import thumbnails
from sdlab.files import write_bytes
from sdlab.tables.captions import Heading
from sdlab.templates import markdown_text, render
from sdlab.words import Words

if TYPE_CHECKING:
    from PIL import Image

SIDE = 260  # pixels of a cell's picture; shown smaller, so that it is sharp on fine screens
MAX_BYTES = 900_000
IN_A_NOTEBOOK = 150_000  # several tables are kept in one file
NOTEBOOK_PAGE = 860  # CSS pixels of a cell's output in JupyterLab in a window of 1280


@dataclass(frozen=True)
class Cell:
    """Up to four pictures of one experiment and one prompt, or what to run to get them.

    One that is `whole` has as many pictures as it should, whatever the other cells have.
    """

    name: str
    alt: str
    images: tuple[Path, ...] = ()
    hint: str = ""
    whole: bool = False


@dataclass(frozen=True)
class Table:
    """A table of pictures. Shown by a notebook as it is; saved by `save` as Markdown, HTML, PNG and PDF.

    Args:
        rows, columns: the headings.
        cells: one tuple of cells per row.
        images_per_cell: 1, 2 or 4.
        language: of its captions, "en" or "ru".

    Taught in: notebooks/02
    """

    rows: tuple[Heading, ...]
    columns: tuple[Heading, ...]
    cells: tuple[tuple[Cell, ...], ...]
    images_per_cell: int = 4
    language: str = "en"

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
        shown = self.texts if texts else []
        return render("table.html", table=self, uris=uris, width=width, texts=shown, say=Words(self.language))

    def fitting(self, page: int, most: int) -> int:
        """A width of the pictures with which all columns are seen at once, as far as 100 pixels go.

        Args:
            page: width of the page, in CSS pixels.
            most: the largest.

        Returns:
            CSS pixels.
        """
        headings = 0 if self.bare else 150
        return min(most, max(100, (page - headings) // len(self.columns) - 12))

    def _repr_html_(self) -> str:
        return self.html(self.fitting(NOTEBOOK_PAGE, 180), IN_A_NOTEBOOK)

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
        text, files = self.markdown_and_pictures(pictures, width, max_bytes, texts=texts)
        for link, content in files.items():
            write_bytes(Path(folder) / link, content)
        return text

    def markdown_and_pictures(
        self, pictures: str = "pictures", width: int = 150, max_bytes: int = MAX_BYTES, *, texts: bool = True
    ) -> tuple[str, dict[str, bytes]]:
        """The same, nothing written.

        Args:
            pictures: as for `markdown`.
            width: as for `markdown`.
            max_bytes: as for `markdown`.
            texts: as for `markdown`.

        Returns:
            The Markdown text, and path to content of its pictures.
        """
        encoded = self._encoded(max_bytes)
        files = {name: f"{pictures}/{name}_{self.images_per_cell}.webp" for name in encoded}
        first = [] if self.bare else [" "]
        lines = ["|".join(["", *first, *(_head(heading) for heading in self.columns), ""])]
        lines.append("|".join(["", *("---" for _ in first), *(":-:" for _ in self.columns), ""]))
        for heading, cells in zip(self.rows, self.cells, strict=True):
            shown = [_markdown_cell(cell, files.get(cell.name), width) for cell in cells]
            lines.append("|".join(["", *([] if self.bare else [_head(heading)]), *shown, ""]))
        if texts and self.texts:
            lines += ["", *(f"- **{markdown_text(h.title)}**: {markdown_text(h.text)}" for h in self.texts)]
        return "\n".join(lines) + "\n", {files[name]: content for name, content in encoded.items()}

    def png(self, path: str | Path, title: str = "") -> Path:
        """The table as one picture with readable labels.

        Args:
            path: the file to write; `.webp` and `.jpg` are taken too and are a tenth of the size.
            title: line above the table.

        Returns:
            The path.
        """
        from sdlab.tables.drawn import draw_table

        path = Path(path)
        formats = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG"}
        if path.suffix not in formats:
            raise ValueError(
                f"a table's file must end with .png, .webp, .jpg, .pdf, .html or .md, got {path.name!r}."
            )
        buffer = io.BytesIO()
        draw_table(self, title).save(buffer, formats[path.suffix], quality=88)
        return write_bytes(path, buffer.getvalue())

    def pdf(self, path: str | Path, title: str = "") -> Path:
        """The table on A4 pages; one that is too wide is turned, then split, its headings repeated.

        Args:
            path: the file to write.
            title: line above the table.

        Returns:
            The path.
        """
        from sdlab.paper import Paper
        from sdlab.tables.paged import put_table, way_of

        paper = Paper(title or Path(path).stem, self.language, way_of(self))
        if title:
            paper.heading(title)
        put_table(paper, self)
        paper.points([f"{heading.title}: {heading.text}" for heading in self.texts])
        return write_bytes(path, paper.pdf())

    def save(self, path: str | Path, title: str = "") -> Path:
        """The table as a file; its name's ending says in what form.

        Args:
            path: ends with .png, .webp, .jpg, .pdf, .html or .md; a Markdown file's pictures lie beside it.
            title: line above the table.

        Returns:
            The path.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        if path.suffix == ".pdf":
            return self.pdf(path, title)
        if path.suffix == ".html":
            return write_bytes(path, render("page.html", title=title or path.stem, table=self).encode())
        if path.suffix == ".md":
            head = f"# {markdown_text(title)}\n\n" if title else ""
            return write_bytes(path, (head + self.markdown(path.parent, f"{path.stem}_pictures")).encode())
        return self.png(path, title)

    def picture(self, cell: Cell, side: int = SIDE) -> Image.Image | None:
        """The cell's images as one picture, or None where there is none."""
        if not cell.images:
            return None
        images = [thumbnails.opened(path) for path in cell.images]
        count = next(n for n in (1, 2, 4) if n >= len(images)) if cell.whole else self.images_per_cell
        if len(images) < count:
            from PIL import Image

            empty = Image.new("RGB", images[0].size, "#dddddd")
            images += [empty] * (count - len(images))
        return thumbnails.square(images, side)

    def shown(self, cell: Cell) -> Image.Image | None:
        """The same as all forms of the table show it: read once, 260 pixels wide."""
        return self._pictures.get(cell.name)

    @property
    def bare(self) -> bool:
        """Whether no row has a heading, as in a sheet of photos."""
        return not any(heading.title for heading in self.rows)

    @property
    def texts(self) -> list[Heading]:
        """Headings with a long text: the prompts, which stand under the table in full."""
        return [heading for heading in (*self.rows, *self.columns) if heading.text]

    @cached_property
    def _pictures(self) -> dict[str, Image.Image]:
        """Pictures of all cells that have one, read once for all forms of the table."""
        cells = {cell.name: cell for row in self.cells for cell in row if cell.images}
        with ThreadPoolExecutor() as threads:  # Pillow reads and scales on several processors at once
            pictures = dict(zip(cells, threads.map(self.picture, cells.values()), strict=True))
        return {name: picture for name, picture in pictures.items() if picture is not None}

    def _encoded(self, max_bytes: int) -> dict[str, bytes]:
        """Pictures of all cells as WebP, in the best quality that fits."""
        encoded: dict[str, bytes] = {}
        for side, quality in ((SIDE, 80), (SIDE, 55), (200, 50), (140, 40), (90, 35)):
            with ThreadPoolExecutor() as threads:
                small = threads.map(partial(_small, side=side, quality=quality), self._pictures.values())
                encoded = dict(zip(self._pictures, small, strict=True))
            if sum(map(len, encoded.values())) < max_bytes:
                break
        return encoded


def _small(picture: Image.Image, side: int, quality: int) -> bytes:
    return thumbnails.webp(thumbnails.fitted(picture, side), quality)


def _head(heading: Heading) -> str:
    title = f"**{markdown_text(heading.title)}**" if heading.title else ""
    return " " + "<br>".join([title, *map(markdown_text, heading.details)]) + " "


def _markdown_cell(cell: Cell, link: str | None, width: int) -> str:
    parts = [f'<img src="{quote(link)}" width="{width}" alt="{markdown_text(cell.alt)}">'] if link else []
    return " " + "<br>".join(parts + ([markdown_text(cell.hint)] if cell.hint else [])) + " "
