"""The control image as a square or inscribed RGB picture; nothing is stretched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

LARGEST_RATIO = 4


def load_picture(path: str | Path, side: int) -> Image.Image:
    """Reads a control image upright, as sRGB, whatever its mode.

    Args:
        path: The picture.
        side: Of the images that it will control, in pixels: a large JPEG is read no larger than needed.

    Returns:
        RGB.

    Raises:
        ValueError: It can't be read, or is too large, too small or too long.
    """
    from sdlab.photos.decode import UnusablePhoto, decode, to_srgb

    try:
        decoded = decode(path, wanted=side)
    except UnusablePhoto as reason:
        raise ValueError(f"The control image {path} can't be used: {reason}.") from reason
    width, height = decoded.image.size
    if max(width, height) > LARGEST_RATIO * min(width, height):
        raise ValueError(
            f"The control image {path} is {decoded.size[0]}×{decoded.size[1]}, its longer side may be at "
            f"most {LARGEST_RATIO} times the shorter one. Crop it to what shall control."
        )
    return to_srgb(decoded.image, decoded.profile)


def fitted(picture: Image.Image, side: int, fit: str) -> Image.Image:
    """Brings a picture to the images' size without stretching it.

    Args:
        picture: RGB.
        side: Of the images, in pixels.
        fit: `crop`: the middle square, side × side; `fit`: the whole picture, its longer side `side`.

    Returns:
        RGB; unchanged where its size is right.
    """
    from PIL import Image, ImageOps

    if picture.size == (side, side):
        return picture
    resize = ImageOps.fit if fit == "crop" else ImageOps.contain
    return resize(picture, (side, side), Image.Resampling.LANCZOS)


def squared(picture: Image.Image, side: int) -> Image.Image:
    """Puts a picture into the middle of a black square.

    Args:
        picture: No side longer than the square's.
        side: Of the square, in pixels.

    Returns:
        RGB, side × side; the picture itself where it is that square.
    """
    from PIL import Image

    if picture.size == (side, side):
        return picture
    square = Image.new("RGB", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
