"""Pictures made small: for HTML that carries its pictures in itself, and for a report that fits into git."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

GAP = 2  # pixels between the pictures of a grid


def grid(images: Sequence[Image.Image], side: int, across: int = 2, count: int = 0) -> Image.Image:
    """Pictures of any size as one, `across` beside each other; the longer side of two together is `side`.

    Where there are fewer than `count`, grey ones of the first one's size follow.
    """
    from PIL import Image

    lacking = [Image.new("RGB", images[0].size, "#dddddd")] * (count - len(images))
    if len(images) + len(lacking) == 1:
        return fitted(images[0], side)
    small = [fitted(image, (side - GAP) // 2) for image in (*images, *lacking)]
    width, height = max(one.width for one in small) + GAP, max(one.height for one in small) + GAP
    sheet = Image.new("RGB", (across * width - GAP, -(-len(small) // across) * height - GAP), "white")
    for index, one in enumerate(small):
        left, top = index % across * width, index // across * height
        sheet.paste(one, (left + (width - GAP - one.width) // 2, top + (height - GAP - one.height) // 2))
    return sheet


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture scaled so that its longer side is `side` pixels."""
    from PIL import Image

    scale = side / max(image.size)
    if scale == 1 and image.mode == "RGB":
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return _rgb(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=1.5)


def webp(image: Image.Image, quality: int = 80, side: int | None = None) -> bytes:
    """The picture, its longer side `side` pixels, as a WebP file's bytes without metadata."""
    buffer = io.BytesIO()
    (fitted(image, side) if side else _rgb(image)).save(
        buffer, "WEBP", quality=quality, method=2, exif=b"", icc_profile=b""
    )
    return buffer.getvalue()


def data_uri(image: Image.Image | bytes, quality: int = 80) -> str:
    """The picture as a `data:` address that stands in HTML in place of a file."""
    content = image if isinstance(image, bytes) else webp(image, quality)
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def opened(path: str | Path | IO[bytes]) -> Image.Image:
    """The file's picture, upright, on white where it is transparent, read completely and closed again."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        file.load()
        upright = ImageOps.exif_transpose(file)
        if upright.mode.startswith("I;16"):
            upright = upright.point([value / 256 for value in range(65536)], "L")
        if upright.has_transparency_data:
            clear = upright.convert("RGBA")
            upright = Image.new("RGB", clear.size, "white")
            upright.paste(clear, mask=clear)
        return upright.convert("RGB")


def readable(paths: Iterable[Path]) -> list[Image.Image]:
    """The files' pictures; one that can't be read is left out with a warning."""
    from PIL import Image

    found = []
    for path in paths:
        try:
            found.append(opened(path))
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
        ) as error:  # a broken PNG, a huge one
            warnings.warn(f"{path} is skipped: it can't be read as an image ({error}).", stacklevel=2)
    return found


def _rgb(image: Image.Image) -> Image.Image:
    """The picture itself where it is RGB: a copy of each would take a tenth of a table's time."""
    return image if image.mode == "RGB" else image.convert("RGB")
