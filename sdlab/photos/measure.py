"""What is measured on each photo, once; the doctor compares it with its thresholds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sdlab.photos.faces import Face

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

BLUR_SIDE = 256
Lab = tuple[float, float, float]


@dataclass(frozen=True)
class Measured:
    """Figures of one instance image and its photo.

    Args:
        blur: 0 (sharp) to 1, of the crop at `BLUR_SIDE` pixels, so that it doesn't depend on the resolution.
        darkest, brightest: 10th and 90th percentile of the luminance, 0 to 255.
        colourfulness: 0 for grey.
        photo_hash: perceptual hash of the whole photo, 64 bits in hexadecimal.
        enlarged: how many times the crop was enlarged; below 1 where it was made smaller.
        face_share: height of the face over the side of the image; None where no face was found.
        background: colours of four places beside the head.
        clothes: colour below the face; None where it can't be seen.
    """

    blur: float
    darkest: float
    brightest: float
    colourfulness: float
    photo_hash: str
    enlarged: float
    face_share: float | None
    background: tuple[Lab, ...]
    clothes: Lab | None

    def as_dict(self) -> dict[str, Any]:
        """The figures as dataset.json holds them."""
        return dict(json.loads(json.dumps(asdict(self))))  # lists for tuples, as they will be read back


def measure(
    image: Image.Image, crop: Image.Image, photo: Image.Image, face: Face | None, enlarged: float
) -> Measured:
    """Measure one photo.

    Args:
        image: the instance image.
        crop: the same, `BLUR_SIDE` pixels large.
        photo: the whole photo, any size.
        face: in pixels of the instance image; None where no face was found.
        enlarged: side of the image over the side of the crop.

    Returns:
        The figures, rounded.

    Source: Crete et al. 2007, "The Blur Effect", by scikit-image; pHash, by imagehash.
    """
    import imagehash
    import numpy as np
    from skimage.measure import blur_effect

    grey = np.asarray(image.convert("L"))
    darkest, brightest = np.percentile(grey, (10, 90))
    edges = np.asarray(crop.convert("L"))
    blur = float(blur_effect(edges)) if edges.min() < edges.max() else 1.0
    return Measured(
        blur=round(blur, 3),
        darkest=round(float(darkest), 1),
        brightest=round(float(brightest), 1),
        colourfulness=round(colourfulness(np.asarray(image)), 1),
        photo_hash=str(imagehash.phash(photo)),
        enlarged=round(enlarged, 3),
        face_share=round(face.side / image.width, 3) if face else None,
        background=tuple(mean_colour(image, box) for box in _beside_the_head(image.width)),
        clothes=mean_colour(image, box) if (box := _below(face, image.width)) else None,
    )


def colourfulness(pixels: np.ndarray) -> float:
    """How colourful a picture is: 0 for grey, about 15 for muted, above 60 for strong colours.

    Args:
        pixels: (height, width, 3), 0 to 255.

    Returns:
        The measure M.

    Source: Hasler and Süsstrunk 2003, "Measuring Colourfulness in Natural Images", equation 6.
    """
    import numpy as np

    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    opponents = (red - green, (red + green) / 2 - blue)
    spread = np.hypot(*(value.std() for value in opponents))
    mean = np.hypot(*(value.mean() for value in opponents))
    return float(spread + 0.3 * mean)


def mean_colour(image: Image.Image, box: tuple[int, int, int, int]) -> Lab:
    """The mean colour of a part of a picture, in CIE Lab, where distance is about as seen."""
    import numpy as np
    from PIL import Image
    from skimage.color import rgb2lab

    pixel = np.asarray(image.resize((1, 1), Image.Resampling.BOX, box=box))
    lightness, green_red, blue_yellow = (round(float(value), 1) for value in rgb2lab(pixel)[0, 0])
    return lightness, green_red, blue_yellow


def _beside_the_head(side: int) -> list[tuple[int, int, int, int]]:
    """Left and right edge, upper and middle part."""
    margin, half, low = max(1, side // 7), side // 3, 2 * side // 3
    return [
        (0, 0, margin, half),
        (side - margin, 0, side, half),
        (0, half, margin, low),
        (side - margin, half, side, low),
    ]


def _below(face: Face | None, side: int) -> tuple[int, int, int, int] | None:
    """A face's width below the chin, where that is in the picture."""
    if face is None:
        return None
    left, top, width, height = face.as_list()
    left, right, top = max(0, left), min(side, left + width), top + round(1.5 * height)
    low = min(side, top + height)
    return (left, top, right, low) if low - top >= side // 10 and right - left >= 2 else None
