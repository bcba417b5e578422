"""Control maps: what ControlNets read, drawn from edges, depths and keypoints."""

from __future__ import annotations

from collections.abc import Iterable
from colorsys import hsv_to_rgb
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

Kind = Literal["canny", "depth", "pose"]
KINDS: tuple[Kind, ...] = ("canny", "depth", "pose")
LOW_THRESHOLD, HIGH_THRESHOLD = 100, 200
# OpenPose's 18 points: nose, neck, right shoulder, elbow, wrist, left shoulder, elbow, wrist, right hip,
# knee, ankle, left hip, knee, ankle, right eye, left eye, right ear, left ear; right is the person's.
# Source: Cao et al. 2019, "OpenPose", its COCO model's output.
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
COLOURS = [tuple(round(255 * part) for part in hsv_to_rgb(n / 18, 1, 1)) for n in range(18)]
NECK, SHOULDERS = 1, (2, 5)
COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)  # COCO's 17 points among OpenPose's 18
THICKNESS = 1 / 128  # half a limb's thickness and a joint's radius: 4 of 512 pixels, as OpenPose draws
LIMB_BRIGHTNESS = 0.6
_DRAWN = 512  # shorter sides are drawn larger and shrunk, which makes their lines smooth


def canny_map(
    image: Image.Image, low_threshold: float = LOW_THRESHOLD, high_threshold: float = HIGH_THRESHOLD
) -> Image.Image:
    """Draws edges white on black, without smoothing first; thresholds are Sobel gradients, 0 to 1442.

    Source: Canny 1986, as in scikit-image, with the thresholds of `cv2.Canny(…, L2gradient=True)`.
    """
    import numpy as np
    from PIL import Image
    from skimage.feature import canny

    grey = np.asarray(image.convert("L"))
    edges = canny(grey, sigma=0, low_threshold=low_threshold, high_threshold=high_threshold)
    return Image.fromarray(edges.astype(np.uint8) * 255).convert("RGB")


def depth_map(depth: np.ndarray) -> Image.Image:
    """Draws relative nearness (height, width) as grey: the farthest black, the nearest white."""
    import numpy as np
    from PIL import Image

    low, high = float(depth.min()), float(depth.max())
    grey = (depth - low) * (255 / max(high - low, 1e-6))
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


def pose_map(people: Iterable[np.ndarray], size: tuple[int, int]) -> Image.Image:
    """Draws skeletons as OpenPose does; each person is (18, 3): x and y in pixels, and seen where above 0."""
    from PIL import Image, ImageDraw

    larger = max(1, -(-_DRAWN // min(size)))
    sheet = Image.new("RGB", (size[0] * larger, size[1] * larger))
    drawing = ImageDraw.Draw(sheet)
    thick = max(1.0, THICKNESS * min(sheet.size))
    for points in people:
        for (start, end), colour in zip(LIMBS, COLOURS, strict=False):
            if points[start][2] > 0 and points[end][2] > 0:
                dark = tuple(int(value * LIMB_BRIGHTNESS) for value in colour)
                corners = _limb(points[start][:2] * larger, points[end][:2] * larger, thick)
                drawing.polygon([(float(x), float(y)) for x, y in corners], fill=dark)
        for (x, y, seen), colour in zip(points * (larger, larger, 1), COLOURS, strict=True):
            if seen > 0:
                drawing.circle((x, y), thick, fill=colour)
    return sheet.reduce(larger) if larger > 1 else sheet


def openpose_from_coco(points: np.ndarray) -> np.ndarray:
    """Turns COCO's points (17, 3) into OpenPose's (18, 3); the neck is the middle of seen shoulders."""
    import numpy as np

    person = np.zeros((18, 3))
    person[list(COCO)] = points
    person[NECK] = person[list(SHOULDERS)].mean(axis=0)
    person[NECK, 2] = person[list(SHOULDERS), 2].min()
    return person


def _limb(start: np.ndarray, end: np.ndarray, thick: float) -> np.ndarray:
    """Corners of the flat ellipse between two joints."""
    import numpy as np

    middle, half = (start + end) / 2, (end - start) / 2
    length = max(float(np.hypot(*half)), 1e-6)
    across = np.array([-half[1], half[0]]) / length * thick
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)[:, None]
    return middle + np.cos(angle) * half + np.sin(angle) * across
