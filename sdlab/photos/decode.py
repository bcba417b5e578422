"""One picture file from a user -> one upright RGB picture, or a refusal that says why."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

# Naming the formats keeps Pillow's exotic decoders away from files that only pretend to be photos.
# A phone's MPO is opened as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "TIFF", "BMP", "GIF")
_ENDINGS = "jpg jpeg jfif mpo png webp tif tiff bmp gif heic heif hif avif"
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
DECODER_VERSION = 2  # raise it when a file gives other pixels than before: latents are cached by it
MAX_PIXELS = 50_400_000  # a 50-megapixel phone, 8192×6144: as RGBA 200 MB, of which a few copies are made
TOO_MANY = f"the limit is {MAX_PIXELS // 10**6} million; save it smaller"
MIN_SIDE = 64


class UnusablePhoto(ValueError):
    """A photo that can't become a training image; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture, and what was done to it."""

    image: Image.Image  # possibly smaller than the photo on disk
    size: tuple[int, int]  # width and height that the photo has on disk, after turning
    notes: tuple[str, ...]
    profile: bytes = b""  # its ICC profile, for `to_srgb`


def decode(path: str | Path, *, wanted: int | None = None, background: str = "white") -> Decoded:
    """Reads a photo completely, turns it upright by its EXIF orientation and brings it to RGB.

    Args:
        path: The photo.
        wanted: Side in pixels that the picture will be resized to; a JPEG far larger is decoded at a
            fraction of its size (never below twice `wanted`), which is several times faster.
        background: Colour behind transparent parts, as Pillow names it: "white", "#808080" …

    Raises:
        UnusablePhoto: The file is no picture, is damaged or truncated, is too large or too small.

    Taught in: notebooks/01
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is checked below, other warnings are about metadata
            return _decode(path, wanted, background)
    except UnusablePhoto:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged header leads them into
        raise UnusablePhoto(_reason(path, error)) from error


def is_picture(path: Path) -> bool:
    """Whether a file's name is that of a picture that `decode` reads, and no hidden file's."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def load_image(path: str | Path) -> Image.Image:
    """Reads any picture of a user's as sRGB: upright, 16 bits scaled, transparent parts laid on white."""
    try:
        decoded = decode(path)
    except UnusablePhoto as reason:
        message = f"{path} can't be read as an image: {reason}. Delete it or put it there again."
        raise ValueError(message) from reason
    return to_srgb(decoded.image, decoded.profile)


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Brings RGB to sRGB, which the base model was trained on; an unreadable profile changes nothing."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        changed = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # a broken profile must not cost the photo
        return image.convert("RGB")
    return changed or image


def _decode(path: Path, wanted: int | None, background: str) -> Decoded:
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)
    notes: list[str] = []
    with Image.open(path, formats=FORMATS) as photo:
        width, height = size = photo.size
        if width * height > MAX_PIXELS:
            raise UnusablePhoto(f"it has {width}×{height} pixels, {TOO_MANY}")
        if min(size) < MIN_SIDE:
            rule = f"the shorter side must be at least {MIN_SIDE}"
            raise UnusablePhoto(f"it is {width}×{height} pixels, {rule}")
        if getattr(photo, "is_animated", False) and photo.format != "MPO":
            notes.append("first frame of several")
        is_jpeg = photo.format in ("JPEG", "MPO")
        if wanted and is_jpeg:
            photo.draft("RGB", (2 * wanted, 2 * wanted))
        photo.load()  # the whole file: verify() lets a truncated JPEG pass
        size = size if is_jpeg else photo.size  # a HEIC's real size may show only now
        if _turn_upright(photo, path, notes):
            size = size[::-1]
        profile = photo.info.get("icc_profile")
        profile = profile if isinstance(profile, bytes) else b""  # a PNG's text may bear the same name
        picture = _to_rgb(photo, background, profile, notes)
    if picture.mode != photo.mode:
        profile = b""  # it described the colours before they became RGB
    if picture is photo:
        picture = picture.copy()  # a plain picture, which doesn't remember the file's EXIF
    picture.info = {}  # no EXIF, GPS or colour profile is carried into the dataset
    return Decoded(picture, size, tuple(notes), profile)


def _turn_upright(photo: Image.Image, path: Path, notes: list[str]) -> bool:
    """Turns the photo by its EXIF orientation; says whether width and height changed places."""
    is_heif = photo.format == "HEIF"
    try:
        exif = photo.getexif()
        if is_heif:  # pillow-heif takes the orientation out of EXIF and keeps it here
            exif[ExifTags.Base.Orientation] = photo.info.get("original_orientation") or 1
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        if orientation not in range(2, 9):
            return False
        notes.append("turned upright by its EXIF orientation")
        if is_heif and _turns_itself(path):
            return False
        ImageOps.exif_transpose(photo, in_place=True)
    except Exception:  # a broken EXIF block must not cost the photo
        notes.append("EXIF unreadable, orientation taken as it is")
        return False
    return bool(orientation >= 5)


def _turns_itself(heic: Path) -> bool:
    """Whether a HEIC says in its own boxes how to turn it, which the decoder has done; EXIF then repeats it.

    Source: ISO/IEC 23008-12, `irot` and `imir` among the item properties of the `meta` box, which is first.
    """
    return re.search(b"irot|imir", file_head(heic, 1 << 16)) is not None


def file_head(path: Path, length: int) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(length)


def _to_rgb(image: Image.Image, background: str, profile: bytes, notes: list[str]) -> Image.Image:
    """RGB without a further copy where it is RGB already."""
    if image.mode.startswith("I") or image.mode == "F":
        notes.append("16-bit grey scaled to 8 bits")
        return _scaled_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema() != (255, 255):
            notes.append(f"transparent parts laid on {background}")
        paper = Image.new("RGB", rgba.size, background)
        paper.paste(rgba, mask=alpha)
        return paper
    if image.mode in ("CMYK", "LAB"):
        notes.append(f"{image.mode} brought to RGB")
    if image.mode == "CMYK" and profile:
        return to_srgb(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Pillow's own convert() saturates everything above 255 to white."""
    image = image if image.mode == "F" else image.convert("I")
    highest = float(np.max(image.getextrema()))
    top = 1 if image.mode == "F" and highest <= 1 else 255 if highest <= 255 else max(65535.0, highest)
    return image.point(lambda value: value * (255 / top) + 0.5).convert("L")


def _reason(path: Path, error: Exception) -> str:
    """Why Pillow couldn't read the file, in words that name the way out."""
    if isinstance(error, MemoryError):
        return "there isn't enough memory to open it"
    try:
        head = file_head(path, 512)
    except OSError as unreadable:
        return f"it can't be opened: {unreadable.strerror or unreadable}"
    if not head.strip(b"\0"):
        return "the file is empty"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, not a picture; download the photo itself"
    if type(error).__name__ == "DecompressionBombError":
        return f"it has too many pixels, {TOO_MANY}"
    if "truncated" in str(error).lower() or "broken" in str(error).lower():
        return "the file is truncated; copy or download it again"
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is not a picture that can be read (JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC)"
    return f"the file is damaged ({error or type(error).__name__}); copy or download it again"
