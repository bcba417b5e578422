"""A4 pages as PDF: text in any script, lists, pictures, and grids that break between their rows."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sdlab.lettering import broken, font, font_file, lettered, writable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

A4, MARGIN, BOTTOM = (210.0, 297.0), 14.0, 16.0  # mm
INK, QUIET, LINE, SOFT = (29, 31, 36), (93, 100, 112), (205, 209, 215), (242, 244, 246)
POINT = 25.4 / 72  # mm
Way = Literal["portrait", "landscape"]
LEADING = 1.32  # line height over letter size
GAP = 1.4  # mm between a grid's cells
DOTS = 190  # of a picture, per inch
SHORT = 110.0  # mm: a grid that is no higher isn't broken between pages


@dataclass(frozen=True)
class Line:
    """A paragraph in a grid's cell.

    Args:
        text: broken into lines where it is too long.
        bold: heavy letters.
        quiet: grey letters.
        most: how many lines it may take; the last ends with an ellipsis then.
    """

    text: str
    bold: bool = False
    quiet: bool = False
    most: int = 99


@dataclass(frozen=True)
class Box:
    """A grid's cell: a picture as wide as the cell, or an empty field, and lines under it.

    Args:
        lines: the text.
        picture: above it.
        empty: height of the empty field over its width; the lines stand in it.
    """

    lines: tuple[Line, ...] = ()
    picture: Image.Image | None = None
    empty: float = 0.0


class Paper:
    """Pages that fill from the top; `pdf` gives the file.

    Args:
        title: the document's title.
        language: "en" or "ru".
        way: how pages lie unless `turn` says otherwise.
    """

    def __init__(self, title: str, language: str = "en", way: Way = "portrait") -> None:
        self._pages, self._way = _pages(title, language), way
        self.turn()

    @property
    def width(self) -> float:
        """What stands between the margins, in mm."""
        return float(self._pages.epw)

    @property
    def left(self) -> float:
        """What is left of the page, in mm."""
        return float(self._pages.h - BOTTOM - self._pages.y)

    def turn(self, way: Way | None = None) -> None:
        """Begins a new page where the present one lies the other way; None takes the document's."""
        pages, way = self._pages, way or self._way
        if not pages.page or (pages.w > pages.h) != (way == "landscape"):
            pages.add_page(orientation=way)

    def heading(self, text: str, level: int = 1) -> None:
        """A heading, which stays with what follows it and stands in the document's outline."""
        self.turn()
        size = (20, 14, 11.5)[level - 1]
        if self._pages.y > MARGIN:
            self._need(46 if level == 2 else 30)
            self._pages.ln(5 if level > 1 else 0)
        with self._written(size, bold=True):
            for index, line in enumerate(self._broken(text, self.width)):
                if index == 0 and level > 1:
                    self._pages.start_section(writable(text), level=level - 2)
                self._put(line)
        self._pages.ln(1.6)

    def paragraph(self, text: str, size: float = 10, *, quiet: bool = False) -> None:
        """A paragraph, broken between pages where it must be."""
        self.turn()
        with self._written(size, quiet=quiet):
            for line in self._broken(text, self.width):
                self._put(line)
        self._pages.ln(1.6)

    def points(self, texts: Iterable[str], size: float = 10) -> None:
        """A list."""
        self.turn()
        with self._written(size):
            for text in texts:
                for index, line in enumerate(self._broken(text, self.width - 5)):
                    self._put(line, indent=5, mark="" if index else "•")
                self._pages.ln(0.5)
        self._pages.ln(1.2)

    def code(self, text: str, size: float = 8) -> None:
        """Lines of code on a grey ground."""
        self.turn()
        with self._written(size, family="Mono"):
            lines = [
                part for line in text.splitlines() for part in self._broken(line, self.width - 6) or [""]
            ]
            self._pages.set_fill_color(*SOFT)
            for line in lines:
                self._put(line, indent=3, fill=True)
        self._pages.ln(2.4)

    def picture(self, image: Image.Image, caption: str = "") -> None:
        """A picture, never cut, at most as wide as the text and a third of a page high; its caption below."""
        self.turn()
        high = min(self.width * image.height / image.width, 90.0)
        self._need(high + 12)
        wide = high * image.width / image.height
        self._pages.image(io.BytesIO(_jpeg(image, wide)), x=MARGIN, y=self._pages.y, w=wide, h=high)
        self._pages.set_y(self._pages.y + high + 1)
        if caption:
            self.paragraph(caption, 8.5, quiet=True)

    def html(self, text: str) -> None:
        """Simple HTML, such as Markdown becomes.

        Args:
            text: paragraphs, lists, emphasis, code, links, tables and pictures as `data:` addresses.
        """
        from fpdf.fonts import FontFace, TextStyle

        self.turn()
        heading = TextStyle(font_style="B", font_size_pt=11.5, t_margin=3, b_margin=1)
        styles = {
            "code": FontFace(family="Mono"),
            "pre": TextStyle(font_family="Mono", font_size_pt=8, t_margin=2, b_margin=2),
            "blockquote": TextStyle(color=QUIET, t_margin=2, b_margin=2),
            **{f"h{level}": heading for level in range(1, 7)},
        }
        text = re.sub(r"<li>\s*<p>(.*?)</p>", r"<li>\1", text, flags=re.S)  # else it loses its mark
        spaced = re.sub(r"<(p|ul|ol)>", rf'<\1 line-height="{LEADING}">', lettered(text))
        with self._written(10):
            self._pages.write_html(spaced, tag_styles=styles, font_family="DejaVu", li_prefix_color=INK)
        self._pages.ln(2)

    def grid(
        self,
        widths: Sequence[float],
        head: Sequence[Box],
        rows: Sequence[Sequence[Box]],
        size: float = 7.5,
        caption: str = "",
    ) -> None:
        """Rows of cells; none is cut, and the head stands above the first row of each page.

        Args:
            widths: of the columns, in mm.
            head: the columns' headings; none for a grid without.
            rows: the cells.
            size: of the letters, in points.
            caption: a line above the first row.
        """
        drawn = [[self._ready(box, w, size) for box, w in zip(row, widths, strict=True)] for row in rows]
        above = [self._ready(box, w, size) for box, w in zip(head, widths, strict=False)]
        heights = [self._height(row, widths, size) for row in drawn]
        least = sum(heights) if sum(heights) < SHORT else heights[0]
        self._need(self._height(above, widths, size) + least + (12 if caption else 0))
        with self._written(8.5, quiet=True):
            for line in self._broken(caption, self.width):
                self._put(line)
            self._pages.ln(1)
        self._row(above, widths, size)
        for row, height in zip(drawn, heights, strict=True):
            if height > self.left:
                self._pages.add_page(same=True)
                self._row(above, widths, size)
            self._row(row, widths, size)
        self._pages.ln(2.5)

    def measure(self, text: str, size: float, *, bold: bool = False) -> float:
        """Width of a text in mm."""
        with self._written(size, bold=bold):
            return self._wide(writable(text))

    def pdf(self) -> bytes:
        """The document.

        Returns:
            A PDF file's bytes.
        """
        return bytes(self._pages.output())

    def _need(self, height: float) -> None:
        """Begins a new page where this one hasn't so much room."""
        if height > self.left and self._pages.y > MARGIN:
            self._pages.add_page(same=True)

    def _broken(self, text: str, width: float) -> list[str]:
        return broken(self._wide, text, width - 0.5)

    def _wide(self, text: str) -> float:
        """Width of a text in the present letters, in mm; Pillow measures ten times as fast as fpdf."""
        pages = self._pages
        letters = font(100, bold="B" in pages.font_style, mono=pages.font_family == "mono")
        return float(letters.getlength(text)) / 100 * float(pages.font_size_pt) * POINT

    def _put(self, line: str, *, indent: float = 0, mark: str = "", fill: bool = False) -> None:
        height = self._pages.font_size_pt * POINT * LEADING
        self._need(height)
        pages = self._pages
        if mark:
            pages.set_x(MARGIN + 1)
            pages.cell(4, height, mark)
        if fill:
            pages.rect(MARGIN, pages.y, self.width, height, style="F")
        pages.set_x(MARGIN + indent)
        pages.cell(self.width - indent, height, line, new_x="LMARGIN", new_y="NEXT")

    def _ready(self, box: Box, width: float, size: float) -> Box:
        """The box with its texts broken into lines as wide as the cell."""
        lines = []
        for line in box.lines:
            with self._written(size, bold=line.bold):
                parts = self._broken(line.text, width - GAP)
            if len(parts) > line.most:
                parts = [*parts[: line.most - 1], parts[line.most - 1].rstrip(" ,")[:-1] + "…"]
            lines += [Line(part, line.bold, line.quiet) for part in parts]
        return Box(tuple(lines), box.picture, box.empty)

    def _height(self, row: Sequence[Box], widths: Sequence[float], size: float) -> float:
        """Of the tallest cell."""
        return max((self._of(box, w, size) for box, w in zip(row, widths, strict=False)), default=0.0) + GAP

    def _of(self, box: Box, width: float, size: float) -> float:
        letters = len(box.lines) * size * POINT * LEADING
        if box.picture is None:
            return max(letters, (width - GAP) * box.empty)
        return letters + (width - GAP) * box.picture.height / box.picture.width

    def _row(self, row: Sequence[Box], widths: Sequence[float], size: float) -> None:
        if not row:
            return
        pages, top, x = self._pages, self._pages.y, MARGIN
        height = self._height(row, widths, size)
        for box, width in zip(row, widths, strict=True):
            y = top
            if box.picture is not None:
                picture = io.BytesIO(_jpeg(box.picture, width - GAP))
                high = (width - GAP) * box.picture.height / box.picture.width
                pages.image(picture, x=x, y=y, w=width - GAP, h=high)
                y += high
            elif box.empty:
                pages.set_fill_color(*SOFT)
                pages.rect(x, y, width - GAP, height - GAP, style="F")
                y += (height - GAP - len(box.lines) * size * POINT * LEADING) / 2
            for line in box.lines:
                with self._written(size, bold=line.bold, quiet=line.quiet):
                    pages.set_xy(x, y)
                    pages.cell(width - GAP, size * POINT * LEADING, line.text)
                    y += size * POINT * LEADING
            x += width
        pages.set_draw_color(*LINE)
        pages.line(MARGIN, top + height - GAP / 2, x - GAP, top + height - GAP / 2)
        pages.set_xy(MARGIN, top + height)

    @contextmanager
    def _written(
        self, size: float, *, bold: bool = False, quiet: bool = False, family: str = "DejaVu"
    ) -> Iterator[None]:
        """With these letters; what is measured or put then has them."""
        pages: Any = self._pages
        before = pages.font_family, pages.font_style, pages.font_size_pt
        pages.set_font(family, "B" if bold else "", size)
        pages.set_text_color(*(QUIET if quiet else INK))
        pages.c_margin = 0
        yield
        pages.set_font(*before)


def _pages(title: str, language: str) -> Any:
    """fpdf's document with DejaVu and page numbers."""
    from fpdf import FPDF

    class Numbered(FPDF):
        def footer(self) -> None:
            self.set_y(-11)
            self.set_font("DejaVu", "", 8)
            self.set_text_color(*QUIET)
            self.cell(0, 5, str(self.page_no()), align="C")

    pages = Numbered(format="A4")
    pages.set_title(writable(title))
    pages.set_lang(language)
    pages.set_margins(MARGIN, MARGIN, MARGIN)
    pages.set_auto_page_break(True, margin=BOTTOM)
    for style, name in (("", ""), ("B", "-Bold"), ("I", "-Oblique"), ("BI", "-BoldOblique")):
        pages.add_font("DejaVu", style, font_file(name))
        pages.add_font("Mono", style, font_file("Mono" + name))
    pages.set_font("DejaVu", "", 10)
    pages.set_text_shaping(True)  # joins Arabic letters, and writes from right to left
    return pages


def _jpeg(image: Image.Image, width: float) -> bytes:
    """The picture without metadata, no finer than a printer shows it at so many mm."""
    small = image.convert("RGB")
    small.thumbnail((round(width / 25.4 * DOTS), image.height))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=75)
    return buffer.getvalue()
