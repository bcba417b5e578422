"""From a picture's description to its pixels, its depth and its keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from .canvas import Canvas
from .figure import draw_figure, keypoints
from .picture import Picture
from .scenes import paint_scene

# How far behind the figure the lens loses focus: share of the side.
BLUR = {"close-up": 0.009, "portrait": 0.005, "half body": 0.0, "full height": 0.0}


@dataclass(frozen=True)
class Truth:
    """A picture with what is known of it.

    Args:
        image: RGB, size × size.
        depth: float32 of shape (size, size), 0 far to 1 near.
        keypoints: float of shape (18, 3), the OpenPose points: x, y in pixels, 1 where inside the picture.
    """

    image: Image.Image
    depth: np.ndarray
    keypoints: np.ndarray


def truth(picture: Picture, size: int = 128) -> Truth:
    """Draw a picture and return it with its depth map and keypoints.

    Args:
        picture: what to draw.
        size: side in pixels, at least 16; 128 is what the mini model draws.

    Raises:
        ValueError: the size is under 16.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, got {size}. The mini model draws 128.")
    canvas = Canvas(size, outline=(38, 30, 44) if picture.style == "cartoon" else None)
    paint_scene(canvas, picture.scene, picture.seed)
    if picture.style == "photo" and BLUR[picture.framing]:
        canvas.blur(BLUR[picture.framing])
    draw_figure(canvas, picture)
    image, depth = canvas.finished()
    pixels = np.asarray(image, np.float32)
    pixels = _photographed(pixels, depth, picture) if picture.style == "photo" else _posterised(pixels)
    pixels = _spoiled(pixels, picture)
    return Truth(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), depth, keypoints(picture, size))


def draw(picture: Picture, size: int = 128) -> Image.Image:
    """Draw a picture as an RGB image of size × size pixels; see `truth`."""
    return truth(picture, size).image


def _photographed(pixels: np.ndarray, depth: np.ndarray, picture: Picture) -> np.ndarray:
    """Light from the side over the relief that the depth forms, a vignette and the light's warmth."""
    side = len(depth)
    relief = gaussian_filter(depth, side * 0.03)
    slope_y, slope_x = np.gradient(relief, 1 / side)
    shading = 1 + 0.055 * (slope_x * -picture.light + slope_y * 0.45).clip(-4, 4) * (depth > 0.5)
    grid = np.linspace(-1, 1, side)
    shading *= 1.04 - 0.13 * np.hypot(grid[None], grid[:, None]) ** 2
    shading *= 1 + 0.09 * picture.light * grid[None]
    tint = 1 + 0.05 * picture.warmth * np.array([1, 0.1, -1])
    return pixels * shading[..., None] * tint


def _posterised(pixels: np.ndarray) -> np.ndarray:
    """The strong flat colours of a cartoon: saturation raised by a quarter."""
    grey = pixels.mean(-1, keepdims=True)
    return grey + 1.25 * (pixels - grey)


def _spoiled(pixels: np.ndarray, picture: Picture) -> np.ndarray:
    """The bad pictures that the words of the negative prompt describe: out of focus, or bent by waves."""
    side = len(pixels)
    if picture.flaw == "blurry":
        return gaussian_filter(pixels, (side * 0.03, side * 0.03, 0))
    if picture.flaw == "deformed":
        y, x = np.mgrid[:side, :side].astype(np.float32)
        bend = side * 0.04
        rows = y + bend * np.sin(x / side * 21 + picture.seed)
        columns = x + bend * np.sin(y / side * 17 + 2 * picture.seed)
        return np.stack(
            [map_coordinates(pixels[..., c], [rows, columns], order=1, mode="nearest") for c in range(3)], -1
        )
    return pixels
