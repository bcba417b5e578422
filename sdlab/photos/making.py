"""One photo becomes one instance image, with the record of how."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.photos.crop import MAX_ENLARGEMENT, Box, Crop, crop_around_face, crop_without_face, cut, words
from sdlab.photos.decode import Decoded, UnusablePhoto, decode, to_srgb
from sdlab.photos.faces import Detector, Face
from sdlab.photos.measure import BLUR_SIDE, measure
from sdlab.photos.sources import Source

if TYPE_CHECKING:
    from PIL import Image

# Part of every image's key: raise it when the way an image is made changes.
RECIPE = "face crop lanczos 3"
BEFORE_SIDE = 320  # of the small whole photo that the contact sheet shows
PNG_LEVEL = 3  # half the time of Pillow's own choice, a twentieth more bytes
SHARP = 1.5  # a JPEG decoded at a fraction of its size must leave the crop this many times the resolution


@dataclass(frozen=True)
class Settings:
    """How images are made.

    Args:
        resolution: side of the images in pixels.
        framing: one of `crop.FRAMINGS`.
        background: colour behind transparent parts.
        detector: finds faces.
    """

    resolution: int
    framing: str
    background: str
    detector: Detector

    def key(self, source_sha256: str) -> str:
        """Changes when an image would have to be made anew; a newly installed detector is no such reason."""
        parts = (RECIPE, str(self.resolution), self.framing, self.background, source_sha256)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Made:
    """An instance image and the small whole photo as files' bytes, and the record."""

    record: dict[str, Any]
    image: bytes
    before: bytes


def make(source: Source, settings: Settings, by_hand: Crop | None = None) -> Made:
    """Decode a photo, find the face, crop, resize, measure.

    Args:
        source: the photo.
        settings: how.
        by_hand: a crop that the user chose.

    Returns:
        The image without metadata, as PNG, and its record.

    Raises:
        UnusablePhoto: the photo can't be used.
    """
    resolution = settings.resolution
    photo = decode(source.path, wanted=resolution, background=settings.background)
    small = _at_most(photo.image, max(2 * BEFORE_SIDE, resolution))
    factor = max(photo.size) / max(small.size)
    faces = [face.scaled(factor) for face in settings.detector.faces(small)]
    crop = by_hand or _crop(source, photo, faces, settings)
    side = crop.box[2] - crop.box[0]
    if photo.image.size != photo.size and side * photo.image.width / photo.size[0] < SHARP * resolution:
        photo = decode(source.path, background=settings.background)
    image = to_srgb(cut(photo.image, crop.box, photo.size, resolution), photo.profile)
    face = _in_crop(faces, crop.box, resolution)
    before = to_srgb(_at_most(small, BEFORE_SIDE), photo.profile)
    content = png(image)
    edges = cut(photo.image, crop.box, photo.size, BLUR_SIDE)
    record = {
        "file": source.target,
        "source": source.name,
        "source_sha256": source.sha256,
        "size": list(photo.size),
        "crop": list(crop.box),
        "crop_by": crop.by,
        "framing": crop.framing,
        "detector": settings.detector.name,
        "faces": len(faces),
        "face": faces[0].as_list() if faces else None,
        "notes": _notes(photo, crop, faces, resolution),
        "measured": measure(image, edges, before, face, resolution / side).as_dict(),
        "key": settings.key(source.sha256),
        "crop_check": crop_check(list(crop.box)),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return Made(record, content, _webp(before))


def own_record(path: Path, sha256: str, source: str | None, settings: Settings) -> dict[str, Any]:
    """The record of an image that the user put there or edited; it is measured, too.

    Args:
        path: the image.
        sha256: of its content.
        source: name of the photo that it stands for; None for none.
        settings: how the others are made.

    Returns:
        The record.

    Raises:
        UnusablePhoto: it can't be read.
    """
    try:
        photo = decode(path)
    except UnusablePhoto as reason:
        raise UnusablePhoto(f"the image made by hand, {path.name}, can't be used: {reason}") from reason
    side = min(photo.size)
    left, top = (photo.size[0] - side) // 2, (photo.size[1] - side) // 2
    box = (left, top, left + side, top + side)
    image = cut(photo.image, box, photo.size, settings.resolution)
    faces = settings.detector.faces(image)
    notes = ["made by hand, kept as it is"]
    if photo.size[0] != photo.size[1]:
        notes.append(f"{photo.size[0]}×{photo.size[1]}: training takes the middle square")
    edges = cut(photo.image, box, photo.size, BLUR_SIDE)
    measured = measure(image, edges, photo.image, faces[0] if faces else None, settings.resolution / side)
    return {
        "file": path.name,
        "source": source,
        "source_sha256": None,
        "size": list(photo.size),
        "crop": None,
        "crop_by": None,
        "framing": None,
        "detector": settings.detector.name,
        "faces": len(faces),
        "face": None,
        "notes": notes,
        "measured": measured.as_dict(),
        "key": None,
        "sha256": sha256,
    }


def crop_check(crop: object) -> str:
    """A digest of a crop; where it doesn't fit the crop in dataset.json, the user edited that."""
    return hashlib.sha256(repr(crop).encode()).hexdigest()[:8]


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file's bytes, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _crop(source: Source, photo: Decoded, faces: list[Face], settings: Settings) -> Crop:
    if not faces:
        return crop_without_face(photo.image, photo.size)
    chance = int(source.sha256[:8], 16)
    name = settings.detector.name
    return crop_around_face(photo.size, faces[0], name, settings.framing, settings.resolution, chance)


def _notes(photo: Decoded, crop: Crop, faces: list[Face], resolution: int) -> list[str]:
    side = crop.box[2] - crop.box[0]
    notes = list(photo.notes)
    if faces and crop.by not in ("hand", "centre", "saliency"):
        notes.append("face found" + (f", framed as {words(crop.framing)}" if crop.framing != "whole" else ""))
    if len(faces) > 1:
        notes.append(f"{len(faces)} faces, the largest taken")
    notes += crop.notes
    if side > resolution:
        notes.append(f"{side} → {resolution} pixels")
    elif side < resolution:
        soft = ": it will look soft" if resolution / side > MAX_ENLARGEMENT else ""
        notes.append(f"enlarged from {side} pixels{soft}")
    return notes


def _in_crop(faces: list[Face], box: Box, resolution: int) -> Face | None:
    """The largest face in pixels of the instance image."""
    if not faces:
        return None
    face = faces[0]
    moved = Face(face.left - box[0], face.top - box[1], face.width, face.height)
    return Face(*moved.scaled(resolution / (box[2] - box[0])).as_list())


def _at_most(image: Image.Image, side: int) -> Image.Image:
    """The picture with a longer side of at most `side` pixels."""
    from PIL import Image

    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX)


def _webp(image: Image.Image) -> bytes:
    from sdlab.thumbnails import webp

    return webp(image, quality=80)
