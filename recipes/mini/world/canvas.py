"""A drawing surface that paints colour and depth with the same strokes.

Every shape is given in the unit square (x to the right, y down) and drawn `OVERSAMPLE` times larger than
asked for; shrinking it at the end is what makes the edges smooth. Because each stroke also writes its
depth, the true depth map of a picture costs nothing extra and is the base of the photographic shading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

OVERSAMPLE = 2
SOFTNESS = 0.5
"""Standard deviation of the smoothing of edges, in pixels of the finished picture: a lens, not a ruler."""
Colour = tuple[int, int, int]
Points = np.ndarray  # (n, 2) float, x and y


@dataclass(frozen=True)
class Frame:
    """A local coordinate system: its origin in the unit square, its scale, its rotation in radians."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    angle: float = 0.0

    def map(self, points: object) -> Points:
        """Local points, shape (n, 2), to the unit square."""
        local = np.asarray(points, float).reshape(-1, 2) * self.scale
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return local @ np.array([[cos, sin], [-sin, cos]]) + (self.x, self.y)

    def turned(self, angle: float, about: tuple[float, float], larger: float = 1.0) -> Frame:
        """The same frame rotated by `angle` radians around a local point, and `larger` times as large."""
        there = self.map(about)[0]
        turned = Frame(0.0, 0.0, self.scale * larger, self.angle + angle)
        x, y = there - turned.map(about)[0]
        return Frame(x, y, turned.scale, turned.angle)


class Canvas:
    """Colour and depth of one picture while it is being drawn.

    Args:
        size: side of the finished picture in pixels.
        outline: colour of the outlines of shapes drawn with `outlined=True` (cartoon style), or None.
    """

    def __init__(self, size: int, outline: Colour | None = None) -> None:
        self.size, self.side, self.outline = size, size * OVERSAMPLE, outline
        self.colour = Image.new("RGB", (self.side, self.side))
        self.depth = Image.new("L", (self.side, self.side))
        self._attach()

    def _attach(self) -> None:
        self._paint, self._carve = ImageDraw.Draw(self.colour), ImageDraw.Draw(self.depth)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (points * self.side).tolist()]

    def polygon(
        self, points: Points, colour: Colour, depth: float | None = None, outlined: bool = False
    ) -> None:
        """Fill a polygon; `depth` in 0 (far) to 1 (near) or None to leave the depth as it is."""
        pixels = self._pixels(points)
        self._paint.polygon(pixels, fill=colour)
        if depth is not None:
            self._carve.polygon(pixels, fill=round(depth * 255))
        if outlined and self.outline is not None:
            width = max(1, round(self.side * 0.006))
            self._paint.line([*pixels, pixels[0]], fill=self.outline, width=width, joint="curve")

    def line(self, points: Points, width: float, colour: Colour, depth: float | None = None) -> None:
        """A line with round joints and ends; `width` in the unit square."""
        pixels, thick = self._pixels(points), max(1, round(width * self.side))
        for draw, value in (
            (self._paint, colour),
            (self._carve, None if depth is None else round(depth * 255)),
        ):
            if value is None:
                continue
            draw.line(pixels, fill=value, width=thick, joint="curve")
            if thick > 3:
                for x, y in (pixels[0], pixels[-1]):
                    draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=value)

    def gradient(
        self,
        top: Colour,
        bottom: Colour,
        y0: float = 0.0,
        y1: float = 1.0,
        depth: tuple[float, float] | None = None,
    ) -> None:
        """Fill the band from y0 to y1 with a vertical gradient of colour, and of depth where given."""
        rows = (round(y0 * self.side), round(y1 * self.side))
        if rows[1] <= rows[0]:
            return
        box, size = (0, rows[0]), (self.side, rows[1] - rows[0])
        self.colour.paste(_ramp(np.array([top, bottom], np.uint8), size), box)
        if depth is not None:
            self.depth.paste(_ramp((np.array(depth) * 255).astype(np.uint8), size), box)

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float = 1.0) -> None:
        """Add a soft round light of `colour`, strongest at its centre."""
        r = max(2, round(radius * self.side))
        ramp = np.linspace(-1, 1, 2 * r)
        falloff = np.clip(1 - np.hypot(ramp[None], ramp[:, None]), 0, 1) ** 1.5 * (255 * strength)
        left, top = round(x * self.side) - r, round(y * self.side) - r
        self.colour.paste(
            Image.new("RGB", (2 * r, 2 * r), colour), (left, top), Image.fromarray(falloff.astype(np.uint8))
        )

    def blur(self, radius: float) -> None:
        """Blur all that is drawn so far, as a lens does with what is out of focus."""
        self.colour = self.colour.filter(ImageFilter.BoxBlur(radius * self.side))
        self._attach()

    def mirror(self) -> None:
        """Turn all that is drawn so far left to right."""
        self.colour, self.depth = ImageOps.mirror(self.colour), ImageOps.mirror(self.depth)
        self._attach()

    def finished(self) -> tuple[Image.Image, np.ndarray]:
        """The picture at its true size, and its depth, float32 of shape (size, size) in 0 to 1, near is 1."""
        smooth = self.colour.filter(ImageFilter.GaussianBlur(SOFTNESS * OVERSAMPLE))
        shrunk = smooth.reduce(OVERSAMPLE)
        depth = np.asarray(self.depth.reduce(OVERSAMPLE), np.float32) / 255
        return shrunk, depth


def _ramp(ends: np.ndarray, size: tuple[int, int]) -> Image.Image:
    weight = np.linspace(0, 1, size[1])
    if ends.ndim == 1:
        column = ends[0] + weight * (float(ends[1]) - float(ends[0]))
        return Image.fromarray(column.round().astype(np.uint8)[:, None]).resize(
            size, Image.Resampling.NEAREST
        )
    column = ends[0] + weight[:, None] * (ends[1].astype(float) - ends[0])
    return Image.fromarray(column.round().astype(np.uint8)[:, None]).resize(size, Image.Resampling.NEAREST)


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> Points:
    """Points of an ellipse, or of its arc between two angles in degrees (clockwise from the right)."""
    angle = np.radians(np.linspace(start, stop, 32 if stop - start > 180 else 16))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], -1)


@cache
def outline(points: str) -> Points:
    """The corners of a shape written as in an SVG, "x,y x,y …"; shared, so it can't be changed."""
    corners = np.array([pair.split(",") for pair in points.split()], float)
    corners.flags.writeable = False
    return corners


def rounded(points: object, rounds: int = 3) -> Points:
    """A closed polygon with its corners cut `rounds` times (Chaikin, 1974), which makes it a smooth curve."""
    corners = np.asarray(points, float)
    for _ in range(rounds):
        following = np.roll(corners, -1, axis=0)
        cut = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], 1)
        corners = cut.reshape(-1, 2)
    return corners


def mirrored(points: object) -> np.ndarray:
    """A right half outline, from top to bottom, completed by its mirror image on the left."""
    right = np.asarray(points, float)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor below 1) or moved towards white (factor above 1)."""
    value = np.asarray(colour, float)
    value = value * factor if factor <= 1 else value + (255 - value) * (factor - 1)
    red, green, blue = (int(v) for v in value.clip(0, 255).round())
    return red, green, blue


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """The colour with a share (0 to 1) of another one."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))
    return red, green, blue
