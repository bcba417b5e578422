"""One photo file -> one upright RGB picture, or a refusal that says why."""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext
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
ORIENTATION = 0x0112
AT_ONCE = 16_000_000  # pixels; larger photos wait for each other
_ALONE = threading.Lock()


class UnusablePhoto(ValueError):
    """A photo that can't become a training image; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture.

    Args:
        image: the picture, possibly smaller than the photo on disk.
        size: width and height that the photo has on disk, after turning.
        notes: what was done to it.
        profile: the photo's ICC profile, for `to_srgb`; empty where there is none.
    """

    image: Image.Image
    size: tuple[int, int]
    notes: tuple[str, ...]
    profile: bytes = b""


def decode(path: str | Path, *, wanted: int | None = None, background: str = "white") -> Decoded:
    """Read a photo completely, turn it upright by its EXIF orientation and bring it to RGB.

    Args:
        path: the photo.
        wanted: side in pixels that the picture will be resized to; a JPEG far larger is decoded at a
            fraction of its size (never below twice `wanted`), which is several times faster.
        background: colour behind transparent parts, as Pillow names it: "white", "#808080" …

    Returns:
        The picture, its size after turning, and notes such as "turned upright".

    Raises:
        UnusablePhoto: the file is no picture, is damaged or truncated, is too large or too small.

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


def turn(path: Path) -> AbstractContextManager[object]:
    """Lets threads work at the same time on ordinary photos, and one after the other on large ones.

    Args:
        path: the photo, which may be no photo at all.

    Returns:
        What to work within; it keeps memory bounded, however many threads there are.
    """
    from PIL import Image

    _know_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as photo:
                large = photo.width * photo.height > AT_ONCE
    except Exception:  # `decode` will say what is wrong with it
        large = False
    return _ALONE if large else nullcontext()


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Bring colours to sRGB, which is what the base model was trained on; phones save wider colours.

    Args:
        image: RGB.
        profile: ICC profile of its colours; empty or unreadable leaves the picture as it is.

    Returns:
        RGB.
    """
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

    _know_heif()
    notes: list[str] = []
    with Image.open(path, formats=FORMATS) as photo:
        _check_size(photo.size)
        if getattr(photo, "is_animated", False) and photo.format != "MPO":
            notes.append("first frame of several")
        full = photo.size
        if wanted and photo.format in ("JPEG", "MPO"):
            photo.draft("RGB", (2 * wanted, 2 * wanted))
        photo.load()  # the whole file: verify() lets a truncated JPEG pass
        if photo.format not in ("JPEG", "MPO"):
            full = photo.size  # a HEIC's real size may show only now
        profile = photo.info.get("icc_profile")
        profile = profile if isinstance(profile, bytes) else b""  # a PNG's text may bear the same name
        picture = _to_rgb(photo, background, profile, notes)
        picture, turned = _upright(picture, photo, notes)
    if picture.mode != photo.mode:
        profile = b""  # it described the colours before they became RGB
    if picture is photo:
        picture = picture.copy()  # a plain picture, which doesn't remember the file's EXIF
    picture.info = {}  # no EXIF, GPS or colour profile is carried into the dataset
    return Decoded(picture, full[::-1] if turned else full, tuple(notes), profile)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise UnusablePhoto(
            f"it has {width}×{height} pixels, the limit is {MAX_PIXELS // 10**6} million; save it smaller"
        )
    if min(size) < MIN_SIDE:
        raise UnusablePhoto(f"it is {width}×{height} pixels, the shorter side must be at least {MIN_SIDE}")


def _upright(picture: Image.Image, photo: Image.Image, notes: list[str]) -> tuple[Image.Image, bool]:
    """The picture turned by the photo's EXIF orientation, and whether width and height changed places."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        # pillow-heif takes the orientation out of EXIF and keeps it here
        read = photo.info.get("original_orientation") if photo.format == "HEIF" else None
        orientation = read or photo.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block must not cost the photo
        notes.append("EXIF unreadable, orientation taken as it is")
        return picture, False
    if orientation not in turns:
        return picture, False
    notes.append("turned upright by its EXIF orientation")
    if photo.format == "HEIF" and _heif_turns_itself(Path(getattr(photo, "filename", ""))):
        return picture, False
    return picture.transpose(turns[orientation]), orientation >= 5


def _heif_turns_itself(path: Path) -> bool:
    """Whether a HEIC says in its own boxes how to turn it, which the decoder has done; EXIF then repeats it.

    Source: ISO/IEC 23008-12, `irot` and `imir` among the item properties of the `meta` box.
    """
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"meta":
                properties = file.read(min(size, 1 << 20))
                return b"irot" in properties or b"imir" in properties
            if size < 8:  # a box without a plain size: trust the decoder
                return True
            file.seek(size - 8, 1)
    return True


def _to_rgb(image: Image.Image, background: str, profile: bytes, notes: list[str]) -> Image.Image:
    """RGB without a further copy where it is RGB already."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        notes.append("16-bit grey scaled to 8 bits")
        return _scaled_to_8_bits(image).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        return _on_background(image, background, notes)
    if image.mode in ("CMYK", "LAB"):
        notes.append(f"{image.mode} brought to RGB")
        if image.mode == "CMYK" and profile:
            return to_srgb(image, profile)
    return image.convert("RGB")


def _on_background(image: Image.Image, background: str, notes: list[str]) -> Image.Image:
    from PIL import Image

    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    lowest = alpha.getextrema()[0]
    if isinstance(lowest, (int, float)) and lowest < 255:
        notes.append(f"transparent parts laid on {background}")
    paper = Image.new("RGB", rgba.size, background)
    paper.paste(rgba, mask=alpha)
    return paper


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Pillow's own convert() saturates everything above 255 to white."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    highest = float(np.nanmax(values))
    top = 1.0 if image.mode == "F" and highest <= 1 else 255.0 if highest <= 255 else max(65535.0, highest)
    grey = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), 256):  # in strips, or 50 megapixels would need a gigabyte
        strip = values[start : start + 256].astype(np.float32) * np.float32(255 / top)
        strip = np.nan_to_num(strip, posinf=255, neginf=0)
        grey[start : start + 256] = np.clip(strip, 0, 255).round()
    return Image.fromarray(grey)


@cache
def _know_heif() -> None:
    """Let Pillow open HEIC; thumbnails and depth images inside it aren't needed."""
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
