"""Which square of a photo becomes the training image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[int, int, int, int]


def centre_square(width: int, height: int) -> Box:
    """The largest square in the middle of a picture.

    Args:
        width, height: the picture's size in pixels.

    Returns:
        Left, top, right, bottom in pixels.

    Taught in: notebooks/02
    """
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def cut(image: Image.Image, box: Box, size: tuple[int, int], resolution: int) -> Image.Image:
    """Crop and resize in one Lanczos pass.

    Args:
        image: the decoded picture, possibly smaller than the photo on disk.
        box: the square, in pixels of the photo on disk.
        size: width and height of the photo on disk.
        resolution: side of the result in pixels.

    Returns:
        A square RGB picture.

    Taught in: notebooks/02
    """
    from PIL import Image

    across, down = image.width / size[0], image.height / size[1]
    scaled = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=scaled)
