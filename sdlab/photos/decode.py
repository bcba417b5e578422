"""One picture file from a user -> one upright RGB picture, or a refusal that says why."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# Naming the formats keeps Pillow's exotic decoders away from files that only pretend to be photos.
# A phone's MPO is opened as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "TIFF", "BMP", "GIF")
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
        *(".heic", ".heif", ".hif", ".avif"),
    }
)
MAX_PIXELS = 50_400_000  # a 50-megapixel phone, 8192×6144: as RGBA 200 MB, of which a few copies are made
MIN_SIDE = 64


class UnusablePhoto(ValueError):
    """A photo that can't become a training image; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture.

    Args:
        image: The picture, possibly smaller than the photo on disk.
        size: Width and height that the photo has on disk, after turning.
        notes: What was done to it.
        profile: The photo's ICC profile, for `to_srgb`; empty where there is none.
    """

    image: Image.Image
    size: tuple[int, int]
    notes: tuple[str, ...]
    profile: bytes = b""


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
    except MemoryError as error:
        raise UnusablePhoto("there isn't enough memory to open it") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged header leads them into
        raise UnusablePhoto(_reason(path, error)) from error


def load_image(path: str | Path) -> Image.Image:
    """Reads any picture of a user's as sRGB: upright, 16 bits scaled, transparent parts laid on white.

    Raises:
        ValueError: It can't be read; the message names the file.
    """
    try:
        decoded = decode(path)
    except UnusablePhoto as reason:
        message = f"{path} can't be read as an image: {reason}. Delete it or put it there again."
        raise ValueError(message) from reason
    return to_srgb(decoded.image, decoded.profile)


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Brings RGB to sRGB, which the base model was trained on; an unreadable profile changes nothing."""
    from PIL import ImageCms

    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        changed = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # a broken profile must not cost the photo
        return image.convert("RGB")
    return changed or image


def _decode(path: Path, wanted: int | None, background: str) -> Decoded:
    from PIL import Image

    _register_heif()
    notes: list[str] = []
    with Image.open(path, formats=FORMATS) as photo:
        is_jpeg = photo.format in ("JPEG", "MPO")
        _check_size(photo.size)
        if getattr(photo, "is_animated", False) and photo.format != "MPO":
            notes.append("first frame of several")
        full = photo.size
        if wanted and is_jpeg:
            photo.draft("RGB", (2 * wanted, 2 * wanted))
        photo.load()  # the whole file: verify() lets a truncated JPEG pass
        if not is_jpeg:
            full = photo.size  # a HEIC's real size may show only now
        if _turn_upright(photo, path, notes):
            full = full[::-1]
        profile = photo.info.get("icc_profile")
        profile = profile if isinstance(profile, bytes) else b""  # a PNG's text may bear the same name
        picture = _to_rgb(photo, background, profile, notes)
    if picture.mode != photo.mode:
        profile = b""  # it described the colours before they became RGB
    if picture is photo:
        picture = picture.copy()  # a plain picture, which doesn't remember the file's EXIF
    picture.info = {}  # no EXIF, GPS or colour profile is carried into the dataset
    return Decoded(picture, full, tuple(notes), profile)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise UnusablePhoto(
            f"it has {width}×{height} pixels, the limit is {MAX_PIXELS // 10**6} million; save it smaller"
        )
    if min(size) < MIN_SIDE:
        raise UnusablePhoto(f"it is {width}×{height} pixels, the shorter side must be at least {MIN_SIDE}")


def _turn_upright(photo: Image.Image, path: Path, notes: list[str]) -> bool:
    """Turns the photo by its EXIF orientation; says whether width and height changed places."""
    from PIL import ExifTags, ImageOps

    try:
        exif, tag = photo.getexif(), ExifTags.Base.Orientation
        if photo.format == "HEIF":  # pillow-heif takes the orientation out of EXIF and keeps it here
            exif[tag] = photo.info.get("original_orientation") or 1
        orientation = exif.get(tag, 1)
        if orientation not in range(2, 9):
            return False
        notes.append("turned upright by its EXIF orientation")
        if photo.format == "HEIF" and _turns_itself(path):
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
    with heic.open("rb") as file:
        head = file.read(1 << 16)
    return b"irot" in head or b"imir" in head


def _to_rgb(image: Image.Image, background: str, profile: bytes, notes: list[str]) -> Image.Image:
    """RGB without a further copy where it is RGB already."""
    from PIL import Image

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
    import numpy as np

    image = image if image.mode == "F" else image.convert("I")
    highest = float(np.max(image.getextrema()))
    top = 1 if image.mode == "F" and highest <= 1 else 255 if highest <= 255 else max(65535.0, highest)
    return image.point(lambda value: value * (255 / top) + 0.5).convert("L")


@cache
def _register_heif() -> None:
    """Lets Pillow open HEIC; thumbnails and depth images inside it aren't needed."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)


def _reason(path: Path, error: Exception) -> str:
    """Why Pillow couldn't read the file, in words that name the way out."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as unreadable:
        return f"it can't be opened: {unreadable.strerror or unreadable}"
    if not head.strip(b"\0"):
        return "the file is empty"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, not a picture; download the photo itself"
    if type(error).__name__ == "DecompressionBombError":
        return f"it has more pixels than the limit of {MAX_PIXELS // 10**6} million; save it smaller"
    if "truncated" in str(error).lower() or "broken" in str(error).lower():
        return "the file is truncated; copy or download it again"
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is not a picture that can be read (JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC)"
    return f"the file is damaged ({error or type(error).__name__}); copy or download it again"
