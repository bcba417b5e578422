"""Control image -> control map of the images' size, with what an image's record says of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.control.annotators import annotate
from sdlab.control.settings import Control
from sdlab.files import file_sha256, fingerprint

if TYPE_CHECKING:
    from PIL import Image

LARGEST_RATIO = 4
RECORDED = ("kind", "scale", "start", "end", "fit", "is_map")
RECORDED_OF_CANNY = ("low_threshold", "high_threshold")


@dataclass(frozen=True)
class ControlMap:
    """A control map and the control image as it sees it, both RGB and of the images' size."""

    control: Control
    image: Image.Image
    reference: Image.Image
    root_name: str  # of the base model that it controls: `mini`, `sd15` …

    @property
    def controlnet(self) -> str:
        """Folder or hub id of its ControlNet."""
        return self.control.controlnet_for(self.root_name)

    @property
    def record(self) -> dict[str, Any]:
        """Everything that this control adds to an image, ready for JSON."""
        control = self.control
        canny = control.kind == "canny" and not control.is_map
        return {name: getattr(control, name) for name in RECORDED + RECORDED_OF_CANNY * canny} | {
            "image": control.file.name,
            "image_sha256": file_sha256(control.file)[:16],
            "map_sha256": hashlib.sha256(self.image.tobytes()).hexdigest()[:16],
            "annotator": _identity(control.annotator_for(self.root_name)),
            "controlnet": _identity(self.controlnet),
        }


def control_map(control: Control, size: int | tuple[int, int], root_name: str = "mini") -> ControlMap:
    """Makes the control map of a control image, which is cropped or fitted first and annotated then.

    Args:
        control: The settings; a map that the user brings (`is_map`) is cropped or fitted alone.
        size: Of the images in pixels: width and height, or the side of a square.
        root_name: Of the base model: `mini`, `sd15` …

    Returns:
        The map, the control image beside it, and its record.

    Raises:
        ValueError: The picture can't be used.
        NothingFound: There are no edges, no depth or no person in it.
    """
    from PIL import Image, ImageOps

    size = (size, size) if isinstance(size, int) else size
    picture = _load(control, max(size))
    if picture.size != size:
        resize = ImageOps.fit if control.fit == "crop" else ImageOps.contain
        picture = resize(picture, size, Image.Resampling.LANCZOS)
    found = picture if control.is_map else annotate(picture, control, control.annotator_for(root_name))
    return ControlMap(control, ImageOps.pad(found, size), ImageOps.pad(picture, size), root_name)


def _load(control: Control, side: int) -> Image.Image:
    """Reads a control image upright, as sRGB; a large JPEG no larger than images of that side need it."""
    from sdlab.photos.decode import UnusablePhoto, decode, to_srgb

    try:
        decoded = decode(control.file, wanted=side)
    except UnusablePhoto as reason:
        raise ValueError(f"The control image {control.image} can't be used: {reason}.") from reason
    if max(decoded.image.size) > LARGEST_RATIO * min(decoded.image.size):
        raise ValueError(
            f"The control image {control.image} is {decoded.size[0]}×{decoded.size[1]}, its longer side may "
            f"be at most {LARGEST_RATIO} times the shorter one. Crop it to what is meant to control."
        )
    return to_srgb(decoded.image, decoded.profile)


def _identity(source: str) -> str:
    """Names a model in a record wherever it lies: a folder by its files' fingerprint, else as it is."""
    files = [file for file in Path(source).glob("*") if file.suffix in (".safetensors", ".bin", ".json")]
    return fingerprint(files) if source and files else source
