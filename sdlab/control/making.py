"""Control -> control map of the images' size, with what the image's record says of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.control.annotators import annotate
from sdlab.control.picture import fitted, load_picture, squared
from sdlab.control.sources import annotator_source, controlnet_source, identity
from sdlab.files import file_sha256

if TYPE_CHECKING:
    from PIL import Image

    from sdlab.control.settings import Control


@dataclass(frozen=True)
class ControlMap:
    """A control map and where it comes from.

    Args:
        control: The settings.
        image: The map, RGB, a square of the images' size.
        reference: The control image as the map sees it, the same square.
        root_name: Of the base model that it controls: `mini`, `sd15` …
    """

    control: Control
    image: Image.Image
    reference: Image.Image
    root_name: str

    @property
    def record(self) -> dict[str, Any]:
        """Everything that this control adds to an image, ready for JSON."""
        control = self.control
        thresholds = {"low_threshold": control.low_threshold, "high_threshold": control.high_threshold}
        return {
            "kind": control.kind,
            "image": Path(control.image).name,
            "image_sha256": file_sha256(control.image)[:16],
            "map_sha256": hashlib.sha256(self.image.tobytes()).hexdigest()[:16],
            "scale": control.scale,
            "start": control.start,
            "end": control.end,
            "fit": control.fit,
            "is_map": control.is_map,
            "annotator": identity(annotator_source(control, self.root_name)),
            "controlnet": identity(controlnet_source(control, self.root_name)),
            **(thresholds if control.kind == "canny" and not control.is_map else {}),
        }


def control_map(control: Control, side: int, root_name: str = "mini") -> ControlMap:
    """Makes the control map of a control image.

    The picture is cropped or fitted first and annotated then, at the images' size; a map that the user
    brings is only cropped or fitted, and not touched where it has that size.

    Args:
        control: The settings.
        side: Of the images, in pixels.
        root_name: Of the base model: `mini`, `sd15` …

    Returns:
        The map.

    Raises:
        ValueError: The picture can't be used.
        NothingFound: There are no edges, no depth or no person in it.
    """
    picture = fitted(load_picture(control.image, side), side, control.fit)
    found = picture if control.is_map else annotate(picture, control, annotator_source(control, root_name))
    return ControlMap(control, squared(found, side), squared(picture, side), root_name)
