"""Pictures made small: for HTML that carries its pictures in itself, and for a report that fits into git."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def square(images: Sequence[Image.Image], side: int, gap: int = 2) -> Image.Image:
    """One, two or four pictures as one: beside each other, or 2×2 as in homework A.

    Args:
        images: one, two or four pictures of any size.
        side: width of one picture alone, or of the 2×2 picture, in pixels.
        gap: white pixels between the pictures.

    Returns:
        A picture `side` wide. Four pictures make it square, two make it half as high.

    Raises:
        ValueError: another number of pictures.
    """
    from PIL import Image

    count = len(images)
    if count not in (1, 2, 4):
        raise ValueError(f"a cell shows 1, 2 or 4 images, got {count}")
    if count == 1:
        return fitted(images[0], side)
    part = (side - gap) // 2
    rows = count // 2
    sheet = Image.new("RGB", (2 * part + gap, rows * part + (rows - 1) * gap), "white")
    for index, image in enumerate(images):
        small = fitted(image, part)
        left, top = (index % 2) * (part + gap), (index // 2) * (part + gap)
        sheet.paste(small, (left + (part - small.width) // 2, top + (part - small.height) // 2))
    return sheet


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture scaled so that its longer side is `side` pixels; never enlarged more than to that."""
    from PIL import Image

    scale = side / max(image.size)
    if scale == 1 and image.mode == "RGB":
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return _rgb(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=1.5)


def webp(image: Image.Image, quality: int = 80) -> bytes:
    """The picture as a WebP file's bytes, without metadata."""
    buffer = io.BytesIO()
    _rgb(image).save(buffer, "WEBP", quality=quality, method=2, exif=b"", icc_profile=b"")
    return buffer.getvalue()


def data_uri(image: Image.Image | bytes, quality: int = 80) -> str:
    """The picture as a `data:` address that stands in HTML in place of a file."""
    content = image if isinstance(image, bytes) else webp(image, quality)
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def opened(path: str | Path | IO[bytes]) -> Image.Image:
    """The file's picture, read completely and closed again."""
    from PIL import Image

    with Image.open(path) as file:
        file.load()
        return file.convert("RGB")


def _rgb(image: Image.Image) -> Image.Image:
    """The picture itself where it is RGB: a copy of each would take a tenth of a table's time."""
    return image if image.mode == "RGB" else image.convert("RGB")
