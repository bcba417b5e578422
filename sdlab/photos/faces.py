"""Where the faces are, by OpenCV's YuNet, whose 230 KB of weights are downloaded once."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.files import file_sha256, write_bytes

if TYPE_CHECKING:
    from PIL import Image

YUNET = "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
HUB_REPOSITORY = "opencv/face_detection_yunet"
ZOO = "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet"
WEIGHTS_FOLDER = Path("cache_dir/models")
PATIENCE = 5  # seconds to wait for each of the two places

SIDE, FAR_SIDE = 640, 1280  # pixels of the longer side: faces down to a thirtieth, to a sixtieth of it
CLOSE_SIDE = 160  # of the surroundings of one face
CONFIDENT, UPRIGHT = 0.7, 0.92  # YuNet's score; a face of less than UPRIGHT may be tilted or lying
HAIR = 0.5  # face heights from the top of YuNet's box to the top of the hair


@dataclass(frozen=True)
class Face:
    """A face, from the forehead to the chin, in pixels of the picture; it may reach over the edge.

    Args:
        up: Unit vector to the top of the head, x and y; of an upright face (0, -1).
        score: How sure the detector is, 0 to 1.
    """

    left: float
    top: float
    width: float
    height: float
    up: tuple[float, float] = (0.0, -1.0)
    score: float = 1.0

    @property
    def side(self) -> float:
        """The longer side."""
        return max(self.width, self.height)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, x and y."""
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def head(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the head with its hair and chin."""
        across, down = (HAIR * self.side * part for part in self.up)
        return (
            self.left + min(0, across),
            self.top + min(0, down),
            self.left + self.width + max(0, across),
            self.top + self.height + max(0, down),
        )

    def scaled(self, factor: float) -> Face:
        """The same face in a picture `factor` times as large."""
        sides = {name: getattr(self, name) * factor for name in ("left", "top", "width", "height")}
        return replace(self, **sides)

    def as_list(self) -> list[int]:
        """Left, top, width, height in whole pixels, as dataset.json holds it."""
        return [round(value) for value in (self.left, self.top, self.width, self.height)]


@dataclass(frozen=True)
class Detector:
    """A way to find faces.

    Args:
        name: Written into dataset.json.
        why: Why it was chosen, for the user.
        find: RGB picture -> faces, the largest first.
    """

    name: str
    why: str
    find: Callable[[Image.Image], list[Face]]


def choose_detector(subject_kind: str = "person") -> Detector:
    """YuNet for persons, where its weights are here or can be downloaded; else none."""
    if subject_kind != "person":
        return Detector("not needed", f"not looked for, the subject is a {subject_kind}", lambda image: [])
    if (weights := yunet_weights()) is None:
        why = (
            f"not looked for: YuNet's weights ({YUNET}, 230 KB) can't be downloaded now, so photos are "
            "cropped where they draw the eye; run it again when online, or put the file into "
            f"{WEIGHTS_FOLDER.as_posix()}"
        )
        return Detector("none", why, lambda image: [])
    return yunet(weights)


def yunet(weights: Path) -> Detector:
    """YuNet with these weights."""
    return Detector("yunet", "looked for by YuNet", lambda image: find_faces(image, weights))


def yunet_weights() -> Path | None:
    """YuNet's weights: here, in the hub's cache, or downloaded from the hub or OpenCV's zoo.

    Source: https://github.com/opencv/opencv_zoo, MIT licence.
    """
    return downloaded(YUNET, YUNET_SHA256, HUB_REPOSITORY, ZOO)


def downloaded(file: str, sha256: str, repository: str, folder: str) -> Path | None:
    """A network of OpenCV's zoo: here, in the hub's cache, or downloaded from there or the zoo's folder."""
    from huggingface_hub import constants, try_to_load_from_cache

    place = WEIGHTS_FOLDER / file
    cached = try_to_load_from_cache(repository, file)
    for path in (place, Path(cached) if isinstance(cached, str) else place):
        if path.is_file() and file_sha256(path) == sha256:
            return path
    if constants.HF_HUB_OFFLINE:
        return None
    for address in (f"{constants.ENDPOINT}/{repository}/resolve/main/{file}", f"{folder}/{file}"):
        if hashlib.sha256(data := _content(address)).hexdigest() == sha256:
            return write_bytes(place, data)
    return None


def _content(address: str) -> bytes:
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        with urlopen(address, timeout=PATIENCE) as answer:
            return bytes(answer.read(100_000_000))
    except (OSError, ValueError, HTTPException):  # no network, no such file, an address that is none
        return b""


def find_faces(image: Image.Image, weights: Path) -> list[Face]:
    """Finds faces by YuNet: in the picture, else enlarged for small faces, else lying on either side.

    Args:
        image: RGB.
        weights: The ONNX file.

    Returns:
        Faces in pixels of the picture, the largest first, which alone is known to be tilted or lying.

    Source: Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector".
    """
    found = _detected(image, SIDE, weights) or _detected(image, FAR_SIDE, weights)
    if not found:
        found = max((_detected(image, SIDE, weights, turn) for turn in (90, 270)), key=len)
    found.sort(key=lambda face: -face.width * face.height)
    if found and found[0].score < UPRIGHT:
        found[0] = _turned_until_upright(image, found[0], weights)
    return found


def _turned_until_upright(image: Image.Image, face: Face, weights: Path) -> Face:
    """The face as it is seen best when its surroundings are turned; YuNet finds a lying one too small."""
    left, top = (round(middle - 1.5 * face.side) for middle in face.centre)
    around = image.crop((left, top, left + round(3 * face.side), top + round(3 * face.side)))
    seen = [one for turn in range(0, 360, 45) for one in _detected(around, CLOSE_SIDE, weights, turn)]
    best = max(seen, key=lambda one: one.score, default=face)
    return replace(best, left=best.left + left, top=best.top + top) if best.up != face.up else face


def _detected(image: Image.Image, side: int, weights: Path, turn: int = 0) -> list[Face]:
    """The faces of a picture looked at with a longer side of `side` pixels, turned left by degrees."""
    import numpy as np
    from PIL import Image, ImageOps

    small = ImageOps.contain(image, (side, side), Image.Resampling.BILINEAR)
    turned = small.rotate(turn, Image.Resampling.BILINEAR, expand=turn % 180 == 90)
    network = _network(str(weights))
    network.setInputSize(turned.size)
    _, rows = network.detect(np.ascontiguousarray(np.asarray(turned)[:, :, ::-1]))  # OpenCV reads BGR
    if rows is None:
        return []
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    faces = []
    for left, top, width, height, *_, score in rows.tolist():
        x, y = left + (width - turned.width) / 2, top + (height - turned.height) / 2
        x, y = x * cos - y * sin + small.width / 2, x * sin + y * cos + small.height / 2
        width, height = abs(width * cos) + abs(height * sin), abs(width * sin) + abs(height * cos)
        faces.append(Face(x - width / 2, y - height / 2, width, height, (sin, -cos), score))
    return [face.scaled(max(image.size) / side) for face in faces]


_OF_THIS_THREAD = threading.local()  # a network holds the size of its input


def _network(weights: str) -> Any:
    import cv2

    loaded: dict[str, Any] = _OF_THIS_THREAD.__dict__.setdefault("loaded", {})
    if weights not in loaded:
        # it warns of targets that nobody asked for
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        loaded[weights] = cv2.FaceDetectorYN.create(weights, "", (SIDE, SIDE), CONFIDENT)
    return loaded[weights]
