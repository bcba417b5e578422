"""A table drawn as one picture, with labels that can be read on a slide."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from sdlab.lettering import broken, font

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from sdlab.tables.captions import Heading
    from sdlab.tables.contents import Table

CELL, GAP, MARGIN, HEAD = 260, 14, 36, 190
INK, QUIET, PAPER, EMPTY = "#1d1f24", "#676d78", "#ffffff", "#eef0f3"
MAX_LINES = 5
MAX_TEXT_LINES = 2


@dataclass(frozen=True)
class _Fonts:
    title: ImageFont.FreeTypeFont
    heading: ImageFont.FreeTypeFont
    detail: ImageFont.FreeTypeFont


def draw_table(table: Table, title: str = "") -> Image.Image:
    """Draw a table of pictures with its headings.

    Args:
        table: the table.
        title: line above it.

    Returns:
        An RGB picture, 260 pixels per cell.

    Taught in: notebooks/05
    """
    from PIL import Image, ImageDraw

    fonts = _fonts()
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    columns = [_wrapped(measure, heading, fonts, CELL) for heading in table.columns]
    width = 2 * MARGIN + HEAD + len(table.columns) * (CELL + GAP)
    titles = _broken(measure, title, fonts.title, width - 2 * MARGIN)
    top = MARGIN + (36 * len(titles) + 16 if titles else 0)
    head_height = max(_height(lines, fonts) for lines in columns) + 10
    pictures = [[table.picture(cell, CELL) for cell in cells] for cells in table.cells]
    empty = CELL // (2 if table.images_per_cell == 2 else 1)
    heights = [max((p.height for p in row if p), default=empty) for row in pictures]
    sheet = Image.new(
        "RGB", (width, top + head_height + sum(heights) + GAP * len(heights) + MARGIN - GAP), PAPER
    )
    drawing = ImageDraw.Draw(sheet)
    for index, line in enumerate(titles):
        drawing.text((MARGIN, MARGIN - 8 + 36 * index), line, fill=INK, font=fonts.title)
    for index, lines in enumerate(columns):
        left = MARGIN + HEAD + GAP + index * (CELL + GAP)
        _write(drawing, lines, fonts, left + CELL // 2, top + head_height - 10 - _height(lines, fonts), "ma")
    y = top + head_height
    for heading, cells, shown, height in zip(table.rows, table.cells, pictures, heights, strict=True):
        lines = _wrapped(measure, heading, fonts, HEAD - 6)
        _write(drawing, lines, fonts, MARGIN, y + (height - _height(lines, fonts)) // 2, "la")
        for index, (cell, picture) in enumerate(zip(cells, shown, strict=True)):
            left = MARGIN + HEAD + GAP + index * (CELL + GAP)
            if picture:
                sheet.paste(picture, (left + (CELL - picture.width) // 2, y), _rounded(picture.size))
            else:
                _write_hint(drawing, cell.hint, fonts, (left, y, left + CELL, y + height))
        y += height + GAP
    return sheet


def _write_hint(
    drawing: ImageDraw.ImageDraw, hint: str, fonts: _Fonts, box: tuple[int, int, int, int]
) -> None:
    drawing.rounded_rectangle(box, radius=8, fill=EMPTY)
    text = "\n".join(_broken(drawing, hint, fonts.detail, CELL - 32)[:MAX_LINES])
    middle = ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)
    drawing.multiline_text(
        middle, text, fill=QUIET, font=fonts.detail, anchor="mm", align="center", spacing=6
    )


def _broken(drawing: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    return broken(partial(drawing.textlength, font=font), text, width)


@cache
def _rounded(size: tuple[int, int], radius: int = 8) -> Image.Image:
    from PIL import Image, ImageDraw

    mask = Image.new("L", (size[0] * 4, size[1] * 4), 0)
    box = (0, 0, mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=radius * 4, fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def _wrapped(
    drawing: ImageDraw.ImageDraw, heading: Heading, fonts: _Fonts, width: int
) -> list[tuple[str, bool]]:
    """Lines of a heading, and whether each belongs to the title."""
    titles = _broken(drawing, heading.title, fonts.heading, width)[:MAX_LINES]
    details = [line for text in heading.details for line in _broken(drawing, text, fonts.detail, width)]
    text = _broken(drawing, heading.text, fonts.detail, width)
    if len(text) > MAX_TEXT_LINES:
        text = [*text[: MAX_TEXT_LINES - 1], text[MAX_TEXT_LINES - 1][:-1].rstrip(" ,") + "…"]
    return [(line, True) for line in titles] + [(line, False) for line in [*details[:MAX_LINES], *text]]


def _height(lines: list[tuple[str, bool]], fonts: _Fonts) -> int:
    return sum(24 if bold else 20 for _, bold in lines)


def _write(
    drawing: ImageDraw.ImageDraw, lines: list[tuple[str, bool]], fonts: _Fonts, x: int, y: int, anchor: str
) -> None:
    for line, bold in lines:
        font, ink = (fonts.heading, INK) if bold else (fonts.detail, QUIET)
        drawing.text((x, y), line, fill=ink, font=font, anchor=anchor)
        y += 24 if bold else 20


def _fonts() -> _Fonts:
    return _Fonts(title=font(26, bold=True), heading=font(18, bold=True), detail=font(15))
