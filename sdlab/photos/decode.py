"""One photo file -> one upright RGB picture, or a refusal that says why."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# Naming the formats keeps Pillow's exotic decoders away from files that only pretend to be photos.
# A phone's MPO is opened as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
        *(".heic", ".heif", ".avif"),
    }
)
MAX_PIXELS = 100_000_000
MIN_SIDE = 64


class UnusablePhoto(ValueError):
    """A photo that can't become a training image; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture with the size that the photo has on disk and notes on what was done to it."""

    image: Image.Image
    size: tuple[int, int]
    notes: tuple[str, ...]


def decode(path: str | Path, *, wanted: int | None = None) -> Decoded:
    """Read a photo completely, turn it upright by its EXIF orientation and bring it to RGB.

    Args:
        path: the photo.
        wanted: side in pixels that the picture will be resized to; a JPEG far larger is decoded at a
            fraction of its size (never below twice `wanted`), which is several times faster.

    Returns:
        The picture, its size after turning, and notes such as "turned upright".

    Raises:
        UnusablePhoto: the file is no picture, is damaged or truncated, is too large or too small.

    Taught in: notebooks/02
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is checked below, other warnings are about metadata
            return _decode(path, wanted)
    except UnusablePhoto:
        raise
    except MemoryError as error:
        raise UnusablePhoto("there isn't enough memory to open it") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged header leads them into
        raise UnusablePhoto(_reason(path, error)) from error


def _decode(path: Path, wanted: int | None) -> Decoded:
    from PIL import Image, ImageOps

    formats = [*FORMATS, "HEIF"] if _heif_is_readable() else list(FORMATS)
    notes: list[str] = []
    with Image.open(path, formats=formats) as photo:
        _check_size(photo.size)
        if getattr(photo, "n_frames", 1) > 1 and photo.format in ("GIF", "WEBP", "PNG", "TIFF"):
            notes.append("first frame of several")
        full = photo.size
        if wanted and photo.format in ("JPEG", "MPO"):
            photo.draft("RGB", (2 * wanted, 2 * wanted))
        photo.load()  # the whole file: verify() lets a truncated JPEG pass
        try:
            upright = ImageOps.exif_transpose(photo)
        except Exception:  # a broken EXIF block must not cost the photo
            upright, orientation = photo.copy(), 1
            notes.append("EXIF unreadable, orientation taken as it is")
        else:
            orientation = photo.getexif().get(0x0112, 1)
        picture = _to_rgb(upright, notes)
    if orientation in range(2, 9):
        notes.append("turned upright by its EXIF orientation")
        full = full[::-1] if orientation >= 5 else full
    picture.info = {}  # no EXIF, GPS or colour profile is carried into the dataset
    return Decoded(picture, (full[0], full[1]), tuple(notes))


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise UnusablePhoto(
            f"it has {width}×{height} pixels, the limit is {MAX_PIXELS // 10**6} million; save it smaller"
        )
    if min(size) < MIN_SIDE:
        raise UnusablePhoto(f"it is {width}×{height} pixels, the shorter side must be at least {MIN_SIDE}")


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        notes.append("16-bit grey scaled to 8 bits")
        return _scaled_to_8_bits(image).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        lowest_alpha = rgba.getchannel("A").getextrema()[0]
        if isinstance(lowest_alpha, (int, float)) and lowest_alpha < 255:
            notes.append("transparent parts laid on white")
        paper = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(paper, rgba).convert("RGB")
    if image.mode in ("CMYK", "YCCK", "LAB"):
        notes.append(f"{image.mode} brought to RGB")
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Pillow's own convert() saturates everything above 255 to white."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if values.max() > 255 else 255.0
    return Image.fromarray(np.clip(values / top * 255, 0, 255).round().astype(np.uint8))


def _heif_is_readable() -> bool:
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    pillow_heif = importlib.import_module("pillow_heif")  # optional: `pip install pillow-heif`

    pillow_heif.register_heif_opener()
    return True


def _reason(path: Path, error: Exception) -> str:
    """Why Pillow couldn't read the file, in words that name the way out."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as unreadable:
        return f"it can't be opened: {unreadable.strerror or unreadable}"
    if not head.strip(b"\0"):
        return "the file is empty"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "it is HEIC, which needs pillow-heif: `pip install pillow-heif`, or export it as JPEG"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, not a picture; download the photo itself"
    if type(error).__name__ == "DecompressionBombError":
        return f"it has more pixels than the limit of {MAX_PIXELS // 10**6} million; save it smaller"
    if "truncated" in str(error).lower() or "broken" in str(error).lower():
        return "the file is truncated; copy or download it again"
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is not a picture that can be read (JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC)"
    return f"the file is damaged ({error or type(error).__name__}); copy or download it again"
