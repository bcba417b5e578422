"""A subject's photos as they lie on a phone: mixed sizes, shapes and formats, and some faults.

The course's raw photos are made by `python -m recipes.mini.world.album`, so that `sdlab prepare` meets
in them what it meets in a student's own.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .drawing import draw
from .subjects import subject

SIDES = (640, 720, 560, 800)
BLUR = 9  # standard deviation in pixels of 640: seen at 128 pixels, too
Written = tuple[str, bytes]  # the file's ending and content


def album(name: str, folder: Path) -> list[Path]:
    """Write a subject's photos as a phone leaves them; files that are there are kept.

    One is HEIC, one WebP, one a PNG with transparent corners, two are turned by EXIF, three aren't square,
    one is out of focus, and one is taken twice.

    Args:
        name: a key of `SUBJECTS`.
        folder: where to write `<subject>_01.jpg` …; made if missing.

    Returns:
        The paths, one more than the subject has photos.

    Raises:
        ValueError: there is no such subject.
    """
    wanted = subject(name)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(wanted.count):
        taken = partial(draw, wanted.photo(index), SIDES[index % len(SIDES)])
        stem = f"{wanted.name.lower()}_{index + 1:02d}"
        paths.append(_write(folder, stem, _WAYS.get(index, jpeg), taken))
        if index == TWICE:
            paths.append(_write(folder, f"{stem}_again", _a_moment_later, taken))
    return paths


def jpeg(image: Image.Image, orientation: int = 1) -> Written:
    """A JPEG; with an orientation from 2 on it is stored turned, and EXIF says how to turn it back."""
    stored = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0110] = "a drawn camera"
    if orientation in stored:
        image = image.transpose(stored[orientation])
    return ".jpg", _saved(image, "JPEG", quality=90, exif=exif)


def _heic(image: Image.Image) -> Written:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return ".heic", _saved(image, "HEIF", quality=80)


def _webp(image: Image.Image) -> Written:
    return ".webp", _saved(image, "WEBP", quality=88)


def _screenshot(image: Image.Image) -> Written:
    """A PNG whose corners are round and transparent."""
    corners = Image.new("L", image.size, 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, *image.size), image.width // 10, fill=255)
    image = image.quantize(255).convert("RGB")  # as few colours as a screenshot: a third of the size
    image.putalpha(corners)
    return ".png", _saved(image, "PNG", optimize=True)


def _tall(image: Image.Image, orientation: int = 1) -> Written:
    return jpeg(_wider_view(image, top=image.height // 8), orientation)


def _wide(image: Image.Image, orientation: int = 1) -> Written:
    return jpeg(_wider_view(image, sides=image.width // 16), orientation)


def _wider_view(image: Image.Image, top: int = 0, sides: int = 0) -> Image.Image:
    """More sky or wall around a picture, in pixels: its square is as large as in the other photos."""
    pixels = np.pad(np.asarray(image), ((top, 0), (sides, sides), (0, 0)), mode="edge")
    return Image.fromarray(pixels)


def _out_of_focus(image: Image.Image) -> Written:
    return jpeg(image.filter(ImageFilter.GaussianBlur(BLUR * image.width / 640)))


def _a_moment_later(image: Image.Image) -> Written:
    """The same photo again, a little brighter and shifted, as the second shot of a burst."""
    shifted = image.crop((0, 4, image.width - 4, image.height))
    return jpeg(shifted.point(lambda value: min(255, round(value * 1.04))))


TWICE = 8
_WAYS: dict[int, Callable[[Image.Image], Written]] = {
    1: _heic,
    3: partial(_tall, orientation=6),
    5: _screenshot,
    10: _tall,
    12: partial(jpeg, orientation=8),
    15: _webp,
    17: _wide,
    18: _out_of_focus,
}


def _saved(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _write(
    folder: Path, stem: str, way: Callable[[Image.Image], Written], taken: Callable[[], Image.Image]
) -> Path:
    there = [path for path in folder.glob(f"{stem}.*") if not path.name.startswith(".")]
    if there:
        return there[0]
    ending, content = way(taken())
    beside = folder / f".{stem}{ending}.partial"
    beside.write_bytes(content)
    os.replace(beside, folder / f"{stem}{ending}")
    return folder / f"{stem}{ending}"


if __name__ == "__main__":
    print(*album("woman", Path("data/raw_images")), sep="\n")
