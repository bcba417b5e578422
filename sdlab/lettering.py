"""Letters on pictures and pages: fonts that are always there, and text broken into lines."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

# They join or colour what stands before them and mean nothing alone.
_JOINERS = {"\u200d", "\ufe0e", "\ufe0f", "\ufeff", *map(chr, range(0x1F3FB, 0x1F400))}


def font_file(style: str = "") -> Path:
    """The file of DejaVu, which comes with matplotlib and knows Cyrillic, Greek, Hebrew and Arabic.

    Args:
        style: such as "-Bold", "-Oblique" or "Mono".

    Returns:
        The path of a TrueType font.
    """
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{style}.ttf"


@cache
def font(size: int, *, bold: bool = False, mono: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu for a picture.

    Args:
        size: in pixels.
        bold: heavy letters.
        mono: letters of one width.

    Returns:
        The font.
    """
    from PIL import ImageFont

    return ImageFont.truetype(font_file(("Mono" if mono else "") + ("-Bold" if bold else "")), size)


def writable(text: object) -> str:
    """Text of one line whose every letter the font has; another is named: `[rocket]`.

    Args:
        text: anything.

    Returns:
        The text.
    """
    return lettered(" ".join(str(text).split()))


def lettered(text: str) -> str:
    """The same for text of several lines, such as HTML.

    Args:
        text: its white space stays.

    Returns:
        The text.
    """
    if text.isascii():
        return text
    return "".join(
        letter if letter.isspace() or ord(letter) in _letters() else _named(letter) for letter in text
    )


@cache
def _letters() -> frozenset[int]:
    """Code points that both DejaVu and its bold have."""
    from fontTools.ttLib import TTFont

    fonts = [TTFont(font_file(style), lazy=True) for style in ("", "-Bold")]
    plain, bold = (set(one.getBestCmap()) for one in fonts)
    return frozenset(code for code in plain & bold if chr(code) not in _JOINERS and chr(code).isprintable())


def _named(letter: str) -> str:
    if letter in _JOINERS or unicodedata.category(letter) in ("Cc", "Cf", "Mn"):
        return ""
    name, code = unicodedata.name(letter, "").lower(), f"U+{ord(letter):04X}"
    return f"[{code if name.endswith(code[2:].lower()) else name}]"


def broken(measure: Callable[[str], float], text: str, width: float) -> list[str]:
    """Text broken at spaces and underscores, and within a word that is too long for a line.

    Args:
        measure: the width of a text.
        text: one paragraph.
        width: of a line, in what `measure` measures.

    Returns:
        The lines.
    """
    lines, line = [], ""
    for piece in _pieces(text):
        if line and measure((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
        while len(line) > 1 and measure(line.rstrip()) > width:
            cut = next((n for n in range(len(line) - 1, 1, -1) if measure(line[:n]) <= width), 1)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str) -> list[str]:
    return re.sub(r"( (?!%)|_)", "\\1\0", writable(text)).split("\0")  # a figure stays with its %
