"""PDF and PNG by typst: templates/pages.typ lays out what it is given as data, so no text needs escaping."""

from __future__ import annotations

import io
import json
import tempfile
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL import Image, ImageFont

# They join or colour what stands before them and mean nothing alone.
_JOINERS = {"\u200d", "\ufe0e", "\ufe0f", "\ufeff", *map(chr, range(0x1F3FB, 0x1F400))}


def pages(title: str, blocks: Sequence[dict[str, Any]], language: str, *, sheet: bool = False) -> bytes:
    """A PDF of A4 pages, or one PNG as large as what it holds (`sheet`), of blocks that pages.typ knows."""
    import typst

    pictures: dict[str, bytes] = {}
    form: Literal["png", "pdf"] = "png" if sheet else "pdf"

    def named(image: Image.Image) -> str:
        """Takes a picture in, without metadata."""
        name, buffer = f"{len(pictures)}.{'png' if sheet else 'jpg'}", io.BytesIO()
        image.convert("RGB").save(buffer, "PNG" if sheet else "JPEG", quality=80)
        pictures[name] = buffer.getvalue()
        return name

    data = {"title": title, "language": language, "sheet": sheet, "blocks": blocks}
    values = printable(json.dumps(data, ensure_ascii=False, default=named))
    template = files("sdlab.templates").joinpath("pages.typ").read_bytes()
    with tempfile.TemporaryDirectory() as folder:  # typst takes text from memory, but no picture
        for name, content in {"main.typ": template, "values.json": values.encode(), **pictures}.items():
            Path(folder, name).write_bytes(content)
        compiler = typst.Compiler(
            Path(folder, "main.typ"), font_paths=[font_folder()], ignore_system_fonts=True
        )
        made = compiler.compile(format=form, ppi=72)
    return made if isinstance(made, bytes) else b"".join(made or [])  # a sheet is one page


def font_folder() -> Path:
    """The folder of DejaVu, which knows Cyrillic, Greek, Hebrew and Arabic and comes with matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf")


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu for a picture that Pillow draws."""
    from PIL import ImageFont

    return ImageFont.truetype(font_folder() / f"DejaVuSans{'-Bold' if bold else ''}.ttf", size)


def printable(text: str) -> str:
    """Text whose every letter DejaVu has; another is named: `[rocket]`."""
    if text.isascii():
        return text
    known = _letters()
    return "".join(one if one.isspace() or ord(one) in known else _named(one) for one in text)


@cache
def _letters() -> frozenset[int]:
    """Code points that both DejaVu and its bold have."""
    from matplotlib.ft2font import FT2Font

    names = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
    plain, bold = (set(FT2Font(str(font_folder() / name)).get_charmap()) for name in names)
    return frozenset(code for code in plain & bold if chr(code) not in _JOINERS and chr(code).isprintable())


def _named(letter: str) -> str:
    if letter in _JOINERS or unicodedata.category(letter) in ("Cc", "Cf", "Mn"):
        return ""
    name, code = unicodedata.name(letter, "").lower(), f"U+{ord(letter):04X}"
    return f"[{code if name.endswith(code[2:].lower()) else name}]"
