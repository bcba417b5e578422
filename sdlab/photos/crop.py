"""Which square of a photo becomes the training image, and cutting it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sdlab.photos.faces import Face

Box = tuple[int, int, int, int]
# Side of the square in face heights, and where in it the middle of the face is, from the top.
WIDER = {"face": (1.9, 0.5), "head_and_shoulders": (3.2, 0.42), "upper_body": (5.5, 0.3), "whole": (0, 0.3)}
FRAMINGS = ("mixed", *WIDER)
# Mixed: a dataset of close-ups alone can't draw "full height", one of whole figures has no face to learn.
MIXED = ("head_and_shoulders", "face", "head_and_shoulders", "upper_body", "whole")
SALIENCY_SIDE = 64


@dataclass(frozen=True)
class Crop:
    """A square of a photo, inside it, and why it is as it is."""

    box: Box  # left, top, right, bottom in pixels of the photo
    by: str  # what placed it: a detector's name, "saliency", "centre" or "hand"
    framing: str  # one of `FRAMINGS` but "mixed", or "hand"
    notes: tuple[str, ...] = ()


def crop_around_face(
    size: tuple[int, int], face: Face, detector: str, framing: str, resolution: int, chance: int = 0
) -> Crop:
    """Places a square around a face: in the picture, and around the whole head wherever the picture has it.

    "mixed" takes a framing by `chance`, a number of the photo's own, but keeps a square photo whole, since
    somebody framed it already, and takes no framing that would have to be enlarged.
    """
    notes: tuple[str, ...] = ()
    if framing == "mixed":
        framing, notes = _mixed(size, face, resolution, chance)
    high, at = WIDER[framing]
    left, top, right, low = face.head
    side = min(size)
    if framing != "whole":
        side = min(side, max(round(high * face.side), math.ceil(max(right - left, low - top))))
    body = (0.5 - at) * side  # the middle of the square lies on the body's side of the face
    x, y = (middle - body * up for middle, up in zip(face.centre, face.up, strict=True))
    across, down = _placed(x, side, left, right, size[0]), _placed(y, side, top, low, size[1])
    return Crop((across, down, across + side, down + side), detector, framing, notes)


def _mixed(size: tuple[int, int], face: Face, resolution: int, chance: int) -> tuple[str, tuple[str, ...]]:
    """Mixed framing made definite, and why."""
    if size[0] == size[1]:
        return "whole", ("square already, kept whole",)
    first, names = MIXED[chance % len(MIXED)], list(WIDER)
    for name in names[names.index(first) : -1]:
        if WIDER[name][0] * face.side >= resolution:
            wider = (f"wider than {first.replace('_', ' ')}, so that it isn't enlarged",)
            return name, () if name == first else wider
    return "whole", ()


def _placed(middle: float, side: int, low: float, high: float, length: int) -> int:
    """Where a square begins that lies inside the picture and holds low … high, or the middle of that."""
    low, high = max(0, low), min(length, high)
    if high - low > side:
        middle = low = high = (low + high) / 2
    start = min(max(middle - side / 2, high - side), low)
    return round(min(max(start, 0), length - side))


def crop_without_face(image: Image.Image, size: tuple[int, int]) -> Crop:
    """The largest square of a photo of `size` on disk, along the longer side where it draws the eye."""
    side = min(size)
    if size[0] == size[1]:
        return Crop((0, 0, side, side), "centre", "whole", ("square already, kept whole",))
    along_width = size[0] > size[1]
    profile = _saliency(image).sum(axis=0 if along_width else 1)
    window = max(1, round(side / max(size) * SALIENCY_SIDE))
    sums = np.convolve(profile, np.ones(window), "valid")
    place = np.flatnonzero(sums >= 0.99 * sums.max()).mean() / max(1, len(sums) - 1)  # the middle of equals
    start = round(place * (max(size) - side))
    left, top = (start, 0) if along_width else (0, start)
    note = "the largest square where the picture draws the eye"
    return Crop((left, top, left + side, top + side), "saliency", "whole", (note,))


def _saliency(image: Image.Image) -> np.ndarray:
    """How much each part of a picture stands out, (SALIENCY_SIDE, SALIENCY_SIDE), whatever its shape.

    Source: Hou and Zhang 2007, "Saliency Detection: A Spectral Residual Approach", equations 8 to 11.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    small = image.convert("L").resize((SALIENCY_SIDE, SALIENCY_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64)
    if np.ptp(pixels) == 0:
        return np.ones_like(pixels)
    spectrum = np.fft.fft2(pixels)
    log_amplitude = np.log(np.abs(spectrum) + 1e-8)
    residual = log_amplitude - uniform_filter(log_amplitude, 3, mode="wrap")
    found = gaussian_filter(np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2, 2.5)
    return np.clip(found - np.quantile(found, 0.75), 0, None)


def crop_by_hand(box: object, size: Sequence[int], name: str) -> Crop:
    """The square that the user wrote into dataset.json for the image `name`."""
    if isinstance(box, list) and len(box) == 4 and all(type(value) is int for value in box):
        left, top, right, low = box
        if right - left == low - top >= 16 and min(box) >= 0 and right <= size[0] and low <= size[1]:
            return Crop((left, top, right, low), "hand", "hand", ("cropped by the box set by hand",))
    raise ValueError(
        f"the crop of {name} in dataset.json must be a square [left, top, right, bottom] of at least 16 "
        f"pixels in the photo of {size[0]}×{size[1]}, got {box}. Correct it, or set it to null for a new one."
    )


def cut(image: Image.Image, box: Box, size: tuple[int, int], resolution: int) -> Image.Image:
    """Crops and resizes in one Lanczos pass; box and size are of the photo on disk, which may be larger.

    Taught in: notebooks/01
    """

    across, down = image.width / size[0], image.height / size[1]
    scaled = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=scaled)
