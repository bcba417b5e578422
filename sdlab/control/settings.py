"""What the user chooses: which picture controls the images, as what, and how strongly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdlab import mini
from sdlab.config import unknown
from sdlab.maps import HIGH_THRESHOLD, KINDS, LOW_THRESHOLD

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


@dataclass(frozen=True)
class Control:
    """One control image and how it steers generation; several at once are a list of these.

    Args:
        kind: `canny`, `depth` or `pose`.
        image: File of the control image, or of the map itself where `is_map` is set.
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
        """The control image's path, `~` resolved."""
        return Path(self.image).expanduser()

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
