"""PDF and PNG by typst: templates/pages.typ lays out what it is given as data, so no text needs escaping."""

from __future__ import annotations

import io
import json
import tempfile
import unicodedata
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL import Image, ImageFont

# They join or colour what stands before them and mean nothing alone.
_JOINERS = {"\u200d", "\ufe0e", "\ufe0f", "\ufeff", *map(chr, range(0x1F3FB, 0x1F400))}
# DejaVu, which knows Cyrillic, Greek, Hebrew and Arabic, comes with matplotlib.
_FONTS = "fonts", "ttf"


class Sheet:
    """What goes to typst: blocks as pages.typ takes them, and the pictures that they name.

    Args:
        sheet: one picture as large as what it holds, in pixels; else A4 pages.
    """

    def __init__(self, title: str, language: str = "en", *, sheet: bool = False) -> None:
        self.values = {"title": title, "language": language, "sheet": sheet}
        self.blocks: list[dict[str, Any]] = []
        self._pictures: dict[str, bytes] = {}

    def add(self, kind: str, **values: Any) -> None:
        """Adds a block; pages.typ says what each kind takes."""
        self.blocks.append({"kind": kind} | values)

    def picture(self, image: Image.Image | None) -> str | None:
        """Takes a picture in, without metadata, and gives its name."""
        if image is None:
            return None
        form, suffix = ("PNG", "png") if self.values["sheet"] else ("JPEG", "jpg")
        buffer, name = io.BytesIO(), f"{len(self._pictures)}.{suffix}"
        image.convert("RGB").save(buffer, form, quality=80)
        self._pictures[name] = buffer.getvalue()
        return name

    def made(self) -> bytes:
        """The PDF file, or the PNG file of a sheet."""
        import typst

        values = json.dumps(self.values | {"blocks": self.blocks}, ensure_ascii=False)
        template = files("sdlab.templates").joinpath("pages.typ").read_bytes()
        form: Literal["png", "pdf"] = "png" if self.values["sheet"] else "pdf"
        with tempfile.TemporaryDirectory() as folder:  # typst takes text from memory, but no picture
            sources = {"main.typ": template, "values.json": printable(values).encode(), **self._pictures}
            for name, content in sources.items():
                Path(folder, name).write_bytes(content)
            compiler = typst.Compiler(
                Path(folder, "main.typ"), font_paths=[font_folder()], ignore_system_fonts=True
            )
            made = compiler.compile(format=form, ppi=72)
        return made if isinstance(made, bytes) else b"".join(made or [])  # a sheet is one page


def font_folder() -> Path:
    """The folder of DejaVu's files."""
    import matplotlib

    return Path(matplotlib.get_data_path()).joinpath(*_FONTS)


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
