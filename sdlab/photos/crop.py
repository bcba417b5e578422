"""Which square of a photo becomes the training image, and cutting it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sdlab.photos.faces import Face

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[int, int, int, int]
Framing = Literal["mixed", "face", "head_and_shoulders", "upper_body", "whole"]
FRAMINGS: tuple[str, ...] = get_args(Framing)
# Side of the square in face heights, and where in it the middle of the face is, from the top.
FACES_HIGH = {"face": 1.9, "head_and_shoulders": 3.2, "upper_body": 5.5}
FACE_AT = {"face": 0.5, "head_and_shoulders": 0.42, "upper_body": 0.3, "whole": 0.3}
# Mixed: a dataset of close-ups alone can't draw "full height", one of whole figures has no face to learn.
MIXED = ("head_and_shoulders", "face", "head_and_shoulders", "upper_body", "whole")
HEAD = 1.25  # face heights that a head needs; a square is never smaller
MAX_ENLARGEMENT = 1.25
SALIENCY_SIDE = 64
HEADS_AT = 0.42  # of a tall photo's height: who stands in it has the head in the upper half


@dataclass(frozen=True)
class Crop:
    """A square of a photo.

    Args:
        box: left, top, right, bottom in pixels of the photo; it may reach over the edge.
        by: what placed it: a detector's name, "saliency", "centre" or "hand".
        framing: one of `FRAMINGS` but "mixed", or "hand".
        notes: why it is as it is.
    """

    box: Box
    by: str
    framing: str
    notes: tuple[str, ...] = ()


def crop_around_face(
    size: tuple[int, int], face: Face, detector: str, framing: str, resolution: int, chance: int = 0
) -> Crop:
    """Place a square around a face.

    The square is shifted into the picture, and is at most as large as the picture's shorter side. Only where
    the head needs more than that does it reach over the edge, which `cut` fills by mirroring.

    Args:
        size: the photo's width and height in pixels.
        face: in pixels of the photo.
        detector: its name.
        framing: one of `FRAMINGS`; "mixed" takes one by chance for each photo, but keeps a square photo
            whole, since somebody framed it already, and takes no framing that would have to be enlarged.
        resolution: side of the training image in pixels.
        chance: a number of the photo's own, such as a piece of its hash, that decides mixed framing.

    Returns:
        The square.
    """
    framing, notes = _chosen_framing(size, face, framing, resolution, chance)
    shorter = min(size)
    side = shorter if framing == "whole" else min(shorter, round(FACES_HIGH[framing] * face.side))
    head = math.ceil(HEAD * face.side)
    if head > side:
        side = head
        notes = [*notes, "the head is larger than the picture, whose edge is mirrored"]
    x, y = face.centre
    left = _shifted(x - side / 2, side, size[0])
    top = _shifted(y - FACE_AT[framing] * side, side, size[1])
    return Crop((left, top, left + side, top + side), detector, framing, tuple(notes))


def _chosen_framing(
    size: tuple[int, int], face: Face, framing: str, resolution: int, chance: int
) -> tuple[str, list[str]]:
    """Mixed framing made definite, and why."""
    if framing != "mixed":
        return framing, []
    if size[0] == size[1]:
        return "whole", ["square already, kept whole"]
    first = MIXED[chance % len(MIXED)]
    wider = ["face", "head_and_shoulders", "upper_body", "whole"]
    for name in wider[wider.index(first) : -1]:
        if FACES_HIGH[name] * face.side >= resolution:
            return name, [] if name == first else [f"wider than {words(first)}, so that it isn't enlarged"]
    return "whole", []


def crop_without_face(image: Image.Image, size: tuple[int, int]) -> Crop:
    """The largest square, where the picture draws the eye.

    Args:
        image: the photo, possibly smaller than on disk.
        size: the photo's width and height on disk in pixels.

    Returns:
        The square, placed by saliency along the longer side, in a tall photo not below where heads are.
    """
    side = min(size)
    if size[0] == size[1]:
        return Crop((0, 0, side, side), "centre", "whole", ("no face found", "square already, kept whole"))
    x, y = salient_point(image)
    left = _shifted(x * size[0] - side / 2, side, size[0])
    top = _shifted(min(y, HEADS_AT) * size[1] - side / 2, side, size[1])
    note = "no face found, so the largest square where the picture draws the eye"
    return Crop((left, top, left + side, top + side), "saliency", "whole", (note,))


def salient_point(image: Image.Image) -> tuple[float, float]:
    """The middle of what stands out in a picture.

    Args:
        image: any size.

    Returns:
        x and y as shares of width and height, 0 to 1.

    Source: Hou and Zhang 2007, "Saliency Detection: A Spectral Residual Approach", equations 8 to 11.
    """
    import numpy as np
    from PIL import Image
    from scipy.ndimage import gaussian_filter, uniform_filter

    small = image.convert("L").resize((SALIENCY_SIDE, SALIENCY_SIDE), Image.Resampling.BOX)
    if small.getextrema()[0] == small.getextrema()[1]:
        return 0.5, 0.5
    spectrum = np.fft.fft2(np.asarray(small, dtype=np.float64))
    log_amplitude = np.log(np.abs(spectrum) + 1e-8)
    residual = log_amplitude - uniform_filter(log_amplitude, 3, mode="wrap")
    saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    saliency = gaussian_filter(saliency, 2.5)
    saliency = np.clip(saliency - np.quantile(saliency, 0.75), 0, None)
    places = (np.arange(SALIENCY_SIDE) + 0.5) / SALIENCY_SIDE
    weights = saliency / saliency.sum()
    return float(weights.sum(axis=0) @ places), float(weights.sum(axis=1) @ places)


def crop_by_hand(box: object, size: Sequence[int], name: str) -> Crop:
    """A square that the user wrote into dataset.json.

    Args:
        box: left, top, right, bottom in pixels of the upright photo; what lies over its edge is mirrored.
        size: the photo's width and height in pixels.
        name: the image's file name, for the message.

    Returns:
        The square.

    Raises:
        ValueError: it is no square of whole numbers, or has little to do with the photo.
    """
    if isinstance(box, list) and len(box) == 4 and all(type(value) is int for value in box):
        left, top, right, low = box
        side = right - left
        inside = left < size[0] and top < size[1] and right > 0 and low > 0
        if side == low - top and 16 <= side <= 2 * max(size) and inside:
            return Crop((left, top, right, low), "hand", "hand", ("cropped by the box set by hand",))
    raise ValueError(
        f"the crop of {name} in dataset.json must be a square [left, top, right, bottom] of at least 16 "
        f"pixels in the photo of {size[0]}×{size[1]}, got {box}. Correct it, or set it to null for a new one."
    )


def cut(image: Image.Image, box: Box, size: tuple[int, int], resolution: int) -> Image.Image:
    """Crop and resize in one Lanczos pass; what lies over the edge is mirrored.

    Args:
        image: the decoded picture, possibly smaller than the photo on disk.
        box: the square, in pixels of the photo on disk.
        size: width and height of the photo on disk.
        resolution: side of the result in pixels.

    Returns:
        A square RGB picture.

    Taught in: notebooks/01
    """
    from PIL import Image

    across, down = image.width / size[0], image.height / size[1]
    scaled = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    if min(box[:2]) < 0 or box[2] > size[0] or box[3] > size[1]:
        image, scaled = _mirrored_at_the_edge(image, scaled)
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=scaled)


def _mirrored_at_the_edge(
    image: Image.Image, box: tuple[float, float, float, float]
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """The picture grown by its mirror image until the box lies inside, and the box in it."""
    import numpy as np
    from PIL import Image

    left, top = max(0, math.ceil(-box[0])), max(0, math.ceil(-box[1]))
    right, low = max(0, math.ceil(box[2] - image.width)), max(0, math.ceil(box[3] - image.height))
    grown = np.pad(np.asarray(image), ((top, low), (left, right), (0, 0)), mode="symmetric")
    return Image.fromarray(grown), (box[0] + left, box[1] + top, box[2] + left, box[3] + top)


def _shifted(start: float, side: int, length: int) -> int:
    """Where the square begins so that it lies inside; one larger than the picture is put in its middle."""
    if side >= length:
        return (length - side) // 2
    return round(min(max(start, 0), length - side))


def words(framing: str) -> str:
    """A framing as it is said."""
    return framing.replace("_", " ")
