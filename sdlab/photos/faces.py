"""Where the faces are: detectors behind one small interface.

A detector is a name and a function from a picture to faces. Two are here: scikit-image's LBP cascade, which
is in its wheel, and YuNet, which OpenCV runs once its 230 KB of weights are in the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from PIL import Image

YUNET = ("opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx")
YUNET_SIDE, YUNET_SCORE = 640, 0.7
LBP_SIDE = 320  # pixels of the longer side: faces down to a twelfth of the picture
MIN_SHARE = 1 / 12
CLOSE_UP = 120  # pixels of the close-up in which a face is looked for again
AGREEMENT = 0.5  # intersection over union with the face found in the mirror image
SMALLEST = 0.6  # of the largest face's side


@dataclass(frozen=True)
class Face:
    """A face, from the forehead to the chin, in pixels of the picture; it may reach over the edge."""

    left: float
    top: float
    width: float
    height: float

    @property
    def side(self) -> float:
        """The longer side."""
        return max(self.width, self.height)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, x and y."""
        return self.left + self.width / 2, self.top + self.height / 2

    def scaled(self, factor: float) -> Face:
        """The same face in a picture `factor` times as large."""
        return Face(self.left * factor, self.top * factor, self.width * factor, self.height * factor)

    def shrunk(self, factor: float) -> Face:
        """The face of `factor` its size around the same middle."""
        (x, y), width, height = self.centre, self.width * factor, self.height * factor
        return Face(x - width / 2, y - height / 2, width, height)

    def as_list(self) -> list[int]:
        """Left, top, width, height in whole pixels, as dataset.json holds it."""
        return [round(value) for value in (self.left, self.top, self.width, self.height)]


@dataclass(frozen=True)
class Detector:
    """A way to find faces.

    Args:
        name: written into dataset.json.
        find: RGB picture -> faces, in any order.
        why: why it was chosen, for the user.
    """

    name: str
    find: Callable[[Image.Image], list[Face]]
    why: str = ""

    def faces(self, image: Image.Image) -> list[Face]:
        """The faces of a picture, the largest first.

        Args:
            image: RGB.

        Returns:
            Faces; empty where none was found.
        """
        return sorted(self.find(image), key=lambda face: -face.width * face.height)


def choose_detector() -> Detector:
    """YuNet where OpenCV and its weights can be had, else the LBP cascade.

    Returns:
        The detector, which says why it was chosen.
    """
    try:
        import cv2
    except ImportError:
        return Detector("lbp", find_by_lbp, "YuNet needs OpenCV: `pip install opencv-python-headless`")
    if not hasattr(cv2, "FaceDetectorYN"):
        return Detector("lbp", find_by_lbp, f"YuNet needs OpenCV 4.5.4 or newer, this is {cv2.__version__}")
    weights = yunet_weights()
    if weights is None:
        return Detector(
            "lbp", find_by_lbp, "YuNet's weights are not in the cache and can't be downloaded now"
        )
    return Detector(
        "yunet", lambda image: find_by_yunet(image, weights), "OpenCV and YuNet's weights are there"
    )


@cache
def yunet_weights() -> Path | None:
    """YuNet's ONNX file from the hub's cache, downloaded where the hub answers; None without it."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if isinstance(cached := try_to_load_from_cache(*YUNET), str):
        return Path(cached)
    try:
        return Path(hf_hub_download(*YUNET)) if _hub_answers() else None
    except Exception:  # no such file, a proxy's page, no room: whatever it is, the other detector does
        return None


def _hub_answers() -> bool:
    """Whether the hub can be reached; the hub's own client would try for half a minute."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(ENDPOINT, method="HEAD"), timeout=3):
            return True
    except (OSError, ValueError):
        return False


def find_by_yunet(image: Image.Image, weights: Path) -> list[Face]:
    """Find faces by YuNet.

    Args:
        image: RGB.
        weights: the ONNX file.

    Returns:
        Faces in pixels of the picture.

    Source: Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector".
    """
    import numpy as np

    small, factor = _shrunk(image, YUNET_SIDE)
    with _YUNET_LOCK:  # a detector holds the size of its input
        network = _yunet(str(weights))
        network.setInputSize(small.size)
        _, rows = network.detect(np.ascontiguousarray(np.asarray(small)[:, :, ::-1]))  # OpenCV reads BGR
    found = [] if rows is None else rows[:, :4]
    return [Face(*(float(value) * factor for value in row)) for row in found]


def find_by_lbp(image: Image.Image) -> list[Face]:
    """Find faces by local binary patterns, those only that a closer look and the mirror image confirm.

    The cascade alone sees a face in many a curtain; in the mirror a face is still one, a curtain isn't.

    Args:
        image: RGB.

    Returns:
        Faces in pixels of the picture; much smaller ones than the largest are left out as mistakes.

    Source: Liao et al. 2007, "Learning Multi-scale Block Local Binary Patterns for Face Recognition".
    """
    small, factor = _shrunk(image.convert("L"), LBP_SIDE)
    least = max(24, round(min(small.size) * MIN_SHARE))  # the cascade was trained on 24×24
    found = _cascade_faces(small, least, min(small.size), steps=1.2)
    confirmed = [closer for face in found if (closer := _closer_look(small, face)) is not None]
    largest = max((face.side for face in confirmed), default=0)
    kept = [face for face in _without_nested(confirmed) if face.side >= SMALLEST * largest]
    return [face.scaled(factor) for face in kept]


def _closer_look(grey: Image.Image, face: Face) -> Face | None:
    """The mean of the face and its mirror image, both found again in a close-up; None unless they agree."""
    from PIL import Image, ImageOps

    half = round(1.1 * face.side)
    x, y = (round(value) for value in face.centre)
    close_up = grey.crop((x - half, y - half, x + half, y + half))
    factor = 2 * half / CLOSE_UP
    close_up = close_up.resize((CLOSE_UP, CLOSE_UP), Image.Resampling.BICUBIC)
    expected = Face(0, 0, CLOSE_UP, CLOSE_UP).shrunk(face.side / (2 * half))
    seen = []
    for picture in (close_up, ImageOps.mirror(close_up)):
        faces = _cascade_faces(picture, round(0.7 * expected.side), round(1.4 * expected.side), steps=1.05)
        if not faces:
            return None
        seen.append(max(faces, key=lambda found: overlap(found, expected)))
    one, other = seen
    other = Face(CLOSE_UP - other.left - other.width, other.top, other.width, other.height)
    if overlap(one, other) < AGREEMENT:
        return None
    left, top = (one.left + other.left) / 2, (one.top + other.top) / 2
    mean = Face(left, top, (one.width + other.width) / 2, (one.height + other.height) / 2).scaled(factor)
    return Face(mean.left + x - half, mean.top + y - half, mean.width, mean.height)


def overlap(one: Face, other: Face) -> float:
    """Intersection over union of two faces, 0 to 1."""
    width = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    height = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    shared = max(0, width) * max(0, height)
    return shared / (one.width * one.height + other.width * other.height - shared)


def _cascade_faces(grey: Image.Image, least: int, most: int, steps: float) -> list[Face]:
    import numpy as np

    found = _cascade().detect_multi_scale(
        np.asarray(grey), scale_factor=steps, step_ratio=1, min_size=(least, least), max_size=(most, most)
    )
    return [Face(*(int(item[name]) for name in ("c", "r", "width", "height"))) for item in found]


def _without_nested(faces: list[Face]) -> list[Face]:
    """Faces whose middle doesn't lie in a larger one: a part of a face is often found as a face."""

    def inside(face: Face, larger: Face) -> bool:
        x, y = face.centre
        return (
            larger.width > face.width
            and 0 <= x - larger.left <= larger.width
            and 0 <= y - larger.top <= larger.height
        )

    return [face for face in faces if not any(inside(face, other) for other in faces)]


def _shrunk(image: Image.Image, side: int) -> tuple[Image.Image, float]:
    """The picture with a longer side of at most `side`, and how much larger the original is."""
    from PIL import Image

    factor = max(1.0, max(image.size) / side)
    size = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(size, Image.Resampling.BOX) if factor > 1 else image, factor


_YUNET_LOCK = threading.Lock()


@cache
def _yunet(weights: str) -> Any:
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of targets nobody asked for

    return cv2.FaceDetectorYN.create(weights, "", (YUNET_SIDE, YUNET_SIDE), YUNET_SCORE)


@cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())
