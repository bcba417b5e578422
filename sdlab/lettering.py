"""Letters on pictures: a font that is always there, and text broken into lines."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu, which comes with matplotlib and knows Cyrillic and Greek.

    Args:
        size: in pixels.
        bold: heavy letters.

    Returns:
        The font.
    """
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def broken(drawing: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Text broken at spaces and underscores, and within a word that is too long for a line.

    Args:
        drawing: measures the text.
        text: one paragraph.
        font: of the text.
        width: of a line in pixels.

    Returns:
        The lines.
    """
    lines, line = [], ""
    for piece in _pieces(text):
        if line and drawing.textlength((line + piece).rstrip(), font=font) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
        while drawing.textlength(line.rstrip(), font=font) > width and len(line) > 1:
            cut = next(
                n
                for n in range(len(line), 0, -1)
                if n == 1 or drawing.textlength(line[:n], font=font) <= width
            )
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str) -> list[str]:
    words = " ".join(text.split()).replace(" ", " \0").replace("_", "_\0")
    return words.split("\0")
