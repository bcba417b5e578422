"""One photo becomes one instance image, with the record of how."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.photos.crop import Box, Crop, crop_around_face, crop_without_face, cut, words
from sdlab.photos.decode import Decoded, UnusablePhoto, decode, to_srgb
from sdlab.photos.doctor import BLUR_SIDE, ENLARGED, measure
from sdlab.photos.faces import FAR_SIDE, Detector, Face
from sdlab.photos.sources import Source

if TYPE_CHECKING:
    from PIL import Image

# Part of every image's key: raise it when the way an image is made changes.
RECIPE = "head crop lanczos 4"
BEFORE_SIDE = 320  # of the small whole photo that the contact sheet shows
PNG_LEVEL = 3  # half the time of Pillow's own choice, a twentieth more bytes
SHARP = 1.5  # a JPEG decoded at a fraction of its size must leave the crop this many times the resolution


@dataclass(frozen=True)
class Settings:
    """How images are made: side in pixels, one of `crop.FRAMINGS`, colour behind transparent parts."""

    resolution: int
    framing: str
    background: str
    detector: Detector

    def key(self, source_sha256: str, by_hand: Crop | None, detector: str) -> str:
        """A digest of all that decides an image, with a detector of this name."""
        box = by_hand.box if by_hand else None
        parts = (RECIPE, self.resolution, self.framing, self.background, source_sha256, box, detector)
        return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Made:
    """An instance image and the small whole photo as files' bytes, and the record."""

    record: dict[str, Any]
    image: bytes
    before: bytes


def make(source: Source, settings: Settings, by_hand: Crop | None = None) -> Made:
    """Decodes a photo, finds the face, crops, resizes, measures.

    Raises:
        UnusablePhoto: The photo can't be used.
    """
    resolution, detector = settings.resolution, settings.detector
    photo = decode(source.path, wanted=max(resolution, FAR_SIDE // 2), background=settings.background)
    small = _at_most(photo.image, max(FAR_SIDE, resolution))
    faces = [face.scaled(max(photo.size) / max(small.size)) for face in detector.find(small)]
    crop = by_hand or _crop(source, photo, faces, settings)
    side = crop.box[2] - crop.box[0]
    if photo.image.size != photo.size and side * photo.image.width / photo.size[0] < SHARP * resolution:
        photo = decode(source.path, background=settings.background)
    image = to_srgb(cut(photo.image, crop.box, photo.size, resolution), photo.profile)
    before = to_srgb(_at_most(small, BEFORE_SIDE), photo.profile)
    edges = cut(photo.image, crop.box, photo.size, BLUR_SIDE)
    content = _bytes(image, "PNG", compress_level=PNG_LEVEL)
    face = _in_crop(faces[0], crop.box, resolution) if faces else None
    record = {
        "file": source.target,
        "source": source.name,
        "source_sha256": source.sha256,
        "size": list(photo.size),
        "crop": list(crop.box),
        "crop_by": crop.by,
        "framing": crop.framing,
        "detector": detector.name,
        "faces": len(faces),
        "face": faces[0].as_list() if faces else None,
        "notes": _notes(photo, crop, faces, settings),
        "measured": measure(image, edges, before, face, resolution / side),
        "key": settings.key(source.sha256, by_hand, detector.name),
        "crop_check": crop_check(list(crop.box)),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return Made(record, content, _bytes(before, "WEBP", quality=80, method=2))


def own_record(path: Path, sha256: str, source: str | None, settings: Settings) -> dict[str, Any]:
    """The record of an image that the user put there or edited, in place of the photo `source` or of none.

    Raises:
        UnusablePhoto: It can't be read.
    """
    try:
        photo = decode(path)
    except UnusablePhoto as reason:
        raise UnusablePhoto(f"the image made by hand, {path.name}, can't be used: {reason}") from reason
    width, height = photo.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    image, edges = (cut(photo.image, box, photo.size, to) for to in (settings.resolution, BLUR_SIDE))
    faces = settings.detector.find(image)
    square = [f"{width}×{height}: training takes the middle square"] if width != height else []
    nothing = dict.fromkeys(("source_sha256", "crop", "crop_by", "framing", "face", "key"))
    return nothing | {
        "file": path.name,
        "source": source,
        "size": [width, height],
        "detector": settings.detector.name,
        "faces": len(faces),
        "notes": ["made by hand, kept as it is", *square],
        "measured": measure(image, edges, photo.image, next(iter(faces), None), settings.resolution / side),
        "sha256": sha256,
    }


def crop_check(crop: object) -> str:
    """A digest of a crop; where it doesn't fit the crop in dataset.json, the user edited that."""
    return hashlib.sha256(repr(crop).encode()).hexdigest()[:8]


def _crop(source: Source, photo: Decoded, faces: list[Face], settings: Settings) -> Crop:
    if not faces:
        return crop_without_face(photo.image, photo.size)
    chance = int(source.sha256[:8], 16)
    name = settings.detector.name
    return crop_around_face(photo.size, faces[0], name, settings.framing, settings.resolution, chance)


def _notes(photo: Decoded, crop: Crop, faces: list[Face], settings: Settings) -> list[str]:
    side, resolution = crop.box[2] - crop.box[0], settings.resolution
    notes = list(photo.notes)
    if faces and crop.by == settings.detector.name:
        notes.append("face found" + (f", framed as {words(crop.framing)}" if crop.framing != "whole" else ""))
    elif not faces and settings.detector.name == "yunet":
        notes.append("no face found")
    if len(faces) > 1:
        notes.append(f"{len(faces)} faces, the largest taken")
    notes += crop.notes
    if side > resolution:
        notes.append(f"{side} → {resolution} pixels")
    elif side < resolution:
        soft = ": it will look soft" if resolution / side > ENLARGED else ""
        notes.append(f"enlarged from {side} pixels{soft}")
    return notes


def _in_crop(face: Face, box: Box, resolution: int) -> Face:
    """The face in pixels of the instance image."""
    moved = replace(face, left=face.left - box[0], top=face.top - box[1])
    return moved.scaled(resolution / (box[2] - box[0]))


def _at_most(image: Image.Image, side: int) -> Image.Image:
    """The picture with a longer side of at most `side` pixels."""
    from PIL import Image, ImageOps

    small = max(image.size) <= side
    return image if small else ImageOps.contain(image, (side, side), Image.Resampling.BOX)


def _bytes(image: Image.Image, kind: str, **options: int) -> bytes:
    """The picture as a file's bytes, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
