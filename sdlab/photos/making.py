"""One photo becomes one instance image, with the record of how."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps

from sdlab.photos.crop import Crop, crop_around_face, crop_without_face, cut
from sdlab.photos.decode import Decoded, UnusablePhoto, decode, to_srgb
from sdlab.photos.doctor import BLUR_SIDE, ENLARGED, Record, measure
from sdlab.photos.faces import FAR_SIDE, Detector, Face
from sdlab.photos.sources import Source
from sdlab.thumbnails import webp

# Part of every image's key: raise it when the way an image is made changes.
RECIPE = "head crop lanczos 4"
BEFORE_SIDE = 320  # of the small whole photo that the contact sheet shows
PNG_LEVEL = 3  # half the time of Pillow's own choice, a twentieth more bytes
SHARP = 1.5  # a JPEG decoded at a fraction of its size must leave the crop this many times the resolution


@dataclass(frozen=True)
class Settings:
    """How images are made: side in pixels, framing, colour behind transparent parts."""

    resolution: int
    framing: str  # one of `crop.FRAMINGS`, or "own": the middle square, as training takes it
    background: str
    detector: Detector

    def key(self, source_sha256: str, by_hand: Crop | None, detector: str) -> str:
        """A digest of all that decides an image, with a detector of this name."""
        box = by_hand.box if by_hand else None
        parts = (RECIPE, self.resolution, self.framing, self.background, source_sha256, box, detector)
        return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def make(source: Source, settings: Settings, by_hand: Crop | None = None) -> tuple[Record, bytes, bytes]:
    """Makes of a photo its record, the instance image as PNG and the small whole photo as WebP."""
    resolution, detector = settings.resolution, settings.detector
    photo = decode(source.path, wanted=max(resolution, FAR_SIDE // 2), background=settings.background)
    small = _at_most(photo.image, max(FAR_SIDE, resolution))
    faces = [face.scaled(max(photo.size) / max(small.size)) for face in detector.find(small)]
    crop = by_hand or _crop(source, photo, faces, settings)
    left, top, right, _ = crop.box
    side = right - left
    if photo.image.size != photo.size and side * photo.image.width / photo.size[0] < SHARP * resolution:
        photo = decode(source.path, background=settings.background)
    image = to_srgb(cut(photo.image, crop.box, photo.size, resolution), photo.profile)
    before = to_srgb(_at_most(small, BEFORE_SIDE), photo.profile)
    edges = cut(photo.image, crop.box, photo.size, BLUR_SIDE)
    inside = [replace(face, left=face.left - left, top=face.top - top) for face in faces[:1]]
    face = inside[0].scaled(resolution / side) if inside else None  # in pixels of the instance image
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=PNG_LEVEL)
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
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
    }
    return record, content.getvalue(), webp(before)


def own_record(path: Path, sha256: str, source: str | None, settings: Settings) -> Record:
    """The record of an image that the user put there or edited, in place of the photo `source` or of none."""
    try:
        own = Source(path, source or "", sha256, path.name)
        record, _, _ = make(own, replace(settings, framing="own"))
    except UnusablePhoto as reason:
        raise UnusablePhoto(f"the image made by hand, {path.name}, can't be used: {reason}") from reason
    width, height = record["size"]
    square = [f"{width}×{height}: training takes the middle square"] if width != height else []
    nothing = dict.fromkeys(("source_sha256", "crop", "crop_by", "framing", "face", "key"))
    del record["crop_check"]
    notes = ["made by hand, kept as it is", *square]
    return record | nothing | {"source": source, "sha256": sha256, "notes": notes}


def crop_check(crop: object) -> str:
    """A digest of a crop; where it doesn't fit the crop in dataset.json, the user edited that."""
    return hashlib.sha256(repr(crop).encode()).hexdigest()[:8]


def _crop(source: Source, photo: Decoded, faces: list[Face], settings: Settings) -> Crop:
    width, height = photo.size
    if settings.framing == "own":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return Crop((left, top, left + side, top + side), "hand", "own")
    if not faces:
        return crop_without_face(photo.image, photo.size)
    chance, name = int(source.sha256[:8], 16), settings.detector.name
    return crop_around_face(photo.size, faces[0], name, settings.framing, settings.resolution, chance)


def _notes(photo: Decoded, crop: Crop, faces: list[Face], settings: Settings) -> list[str]:
    side, resolution = crop.box[2] - crop.box[0], settings.resolution
    framing = f", framed as {crop.framing.replace('_', ' ')}" if crop.framing != "whole" else ""
    taken = "one that most photos share" if settings.detector.name == "sface" else "largest"
    soft = ": it will look soft" if resolution / side > ENLARGED else ""
    notes = {
        f"face found{framing}": faces and crop.by == settings.detector.name,
        "no face found": not faces and settings.detector.weights,
        f"{len(faces)} faces, the {taken} taken": len(faces) > 1,
        **dict.fromkeys(crop.notes, True),
        f"{side} → {resolution} pixels": side > resolution,
        f"enlarged from {side} pixels{soft}": side < resolution,
    }
    return [*photo.notes, *(note for note, holds in notes.items() if holds)]


def _at_most(image: Image.Image, side: int) -> Image.Image:
    """The picture with a longer side of at most `side` pixels."""
    small = max(image.size) <= side
    return image if small else ImageOps.contain(image, (side, side), Image.Resampling.BOX)
