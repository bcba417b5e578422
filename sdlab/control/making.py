"""Control image -> control map of the images' size: what the user chooses, and what comes of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sdlab import mini
from sdlab.config import unknown
from sdlab.control.annotators import annotate
from sdlab.control.maps import HIGH_THRESHOLD, KINDS, LOW_THRESHOLD
from sdlab.files import file_sha256, fingerprint

if TYPE_CHECKING:
    from PIL import Image

LARGEST_RATIO = 4
RECORDED = ("kind", "scale", "start", "end", "fit", "is_map")
RECORDED_OF_CANNY = ("low_threshold", "high_threshold")
FITS = ("crop", "fit")
ANNOTATORS = {
    "canny": "scikit-image",
    "depth": "depth-anything/Depth-Anything-V2-Small-hf",
    "pose": "usyd-community/vitpose-base-simple",
}
CONTROLNETS = {
    "canny": "lllyasviel/control_v11p_sd15_canny",
    "depth": "lllyasviel/control_v11f1p_sd15_depth",
    "pose": "lllyasviel/control_v11p_sd15_openpose",
}

_NOTHING = {
    "canny": "No edges found in {}. Lower low_threshold and high_threshold, or take one with more contrast.",
    "depth": "No depth found in {}. Take another picture.",
    "pose": "No person found in {}. Take a picture of a person, leave out pose, or bring a map (is_map).",
}


class NothingFound(ValueError):
    """An annotator found nothing in the picture, so its map would be black and control nothing."""


@dataclass(frozen=True)
class Control:
    """One control image and how it steers generation; several at once are a list of these.

    Args:
        kind: `canny`, `depth` or `pose`.
        image: File of the control image, such as the course's `data/control_images/raised_arms.png`, or of
            the map itself where `is_map` is set.
        scale: `controlnet_conditioning_scale`: factor of what the ControlNet adds; 0 is no control.
        start: `control_guidance_start`: share of the denoising steps before control begins, 0 to 1.
        end: `control_guidance_end`: share of the denoising steps after which control ends, 0 to 1.
        low_threshold: Canny: gradient from which an edge goes on.
        high_threshold: Canny: gradient at which an edge begins.
        fit: `crop` cuts what sticks out of the images' shape; `fit` shows all, black beside it.
        is_map: The image is a control map already and stays as it is.
        annotator: `controlnet_aux`, or for depth and pose the hub id or folder of a transformers model; None
            takes scikit-image for canny, else the base model's.
        model: Hub id or folder of the ControlNet; None takes the base model's.

    Raises:
        ValueError: A value breaks its rule.
        FileNotFoundError: The control image isn't there.

    Source:
        Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models".
    """

    kind: str
    image: str | Path
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    low_threshold: float = LOW_THRESHOLD
    high_threshold: float = HIGH_THRESHOLD
    fit: Literal["crop", "fit"] = "crop"
    is_map: bool = False
    annotator: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        low, high = self.low_threshold, self.high_threshold
        rules = {
            unknown("kind of control", self.kind, KINDS): self.kind in KINDS,
            unknown("fit", self.fit, FITS): self.fit in FITS,
            f"scale must be 0 to 10, got {self.scale:g}. Usual: 0.5 to 1.": 0 <= self.scale <= 10,
            "start and end are shares of the steps, 0 <= start < end <= 1, "
            f"got {self.start:g} and {self.end:g}. Usual: 0 and 1.": 0 <= self.start < self.end <= 1,
            "canny's thresholds must be 0 < low_threshold <= high_threshold, "
            f"got {low:g} and {high:g}. Usual: 100 and 200.": 0 < low <= high,
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise ValueError(broken[0])
        if not self.file.is_file():
            folder = self.file.is_dir()
            what = "is a folder: name a picture in it" if folder else "isn't there. Check the path"
            raise FileNotFoundError(f"The control image {str(self.image)!r} {what}.")

    @property
    def file(self) -> Path:
        """The control image's path, `~` resolved; those of the course are found wherever they are."""
        return mini.control_image(Path(self.image).expanduser())

    @property
    def label(self) -> str:
        """What results are called by: kind, picture, and the scale where it isn't 1."""
        picture = re.sub(r"[^\w.-]+", "_", self.file.stem).strip("_.-") or "image"
        scale = "" if self.scale == 1 else f"_scale{self.scale:g}"
        return f"{self.kind}_{picture[:40]}{scale}"

    def annotator_for(self, root_name: str) -> str:
        """What makes the map: a folder, a hub id, `scikit-image` or `controlnet_aux`; "" for `is_map`."""
        if self.is_map or self.annotator:
            return "" if self.is_map else str(self.annotator)
        of_mini = root_name == "mini" and self.kind != "canny"  # its annotators know the drawn world
        return str(mini.annotator_path(self.kind)) if of_mini else ANNOTATORS[self.kind]

    def controlnet_for(self, root_name: str) -> str:
        """Where the ControlNet is, a folder or a hub id: `mini` has its own, other bases take SD 1.5's."""
        of_base = str(mini.controlnet_path(self.kind)) if root_name == "mini" else CONTROLNETS[self.kind]
        return self.model or of_base


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
    found, thresholds = picture, (control.low_threshold, control.high_threshold)
    if not control.is_map:
        found = annotate(picture, control.kind, control.annotator_for(root_name), thresholds)
        if found.convert("L").getextrema()[1] == 0:
            raise NothingFound(_NOTHING[control.kind].format(control.image))
    return ControlMap(control, ImageOps.pad(found, size), ImageOps.pad(picture, size), root_name)


def _load(control: Control, side: int) -> Image.Image:
    """Reads a control image upright, as sRGB; a large JPEG no larger than images of that side need it."""
    from sdlab.photos.decode import UnusablePhoto, decode, to_srgb

    try:
        decoded = decode(control.file, wanted=side, background="black" if control.is_map else "white")
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
