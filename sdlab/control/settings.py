"""What the user chooses: which picture controls the images, as what, and how strongly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdlab.config import unknown
from sdlab.maps import HIGH_THRESHOLD, KINDS, LOW_THRESHOLD


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
        if self.kind not in KINDS:
            raise ValueError(unknown("kind of control", self.kind, KINDS))
        if self.fit not in ("crop", "fit"):
            raise ValueError(unknown("fit", self.fit, ("crop", "fit")))
        if not 0 <= self.scale <= 10:
            raise ValueError(f"scale must be 0 to 10, got {self.scale:g}. Usual: 0.5 to 1.")
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                "start and end are shares of the steps, 0 <= start < end <= 1, "
                f"got {self.start:g} and {self.end:g}. Usual: 0 and 1."
            )
        if not 0 < self.low_threshold <= self.high_threshold:
            raise ValueError(
                "canny's thresholds must be 0 < low_threshold <= high_threshold, "
                f"got {self.low_threshold:g} and {self.high_threshold:g}. Usual: 100 and 200."
            )
        if not self.file.is_file():
            what = (
                "is a folder: name a picture in it" if self.file.is_dir() else "isn't there. Check the path"
            )
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
