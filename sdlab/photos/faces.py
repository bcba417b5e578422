"""Where the faces are and whose, by OpenCV's YuNet and SFace, whose weights are downloaded once."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from sdlab.files import file_sha256, write_bytes

YUNET, SFACE = "face_detection_yunet_2023mar.onnx", "face_recognition_sface_2021dec.onnx"
SHA256 = {
    YUNET: "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    SFACE: "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
}
ZOO = "https://github.com/opencv/opencv_zoo/raw/main/models"
WEIGHTS_FOLDER = Path("cache_dir/models")
PATIENCE = 5  # seconds to wait for each of the two places

SIDE, FAR_SIDE = 640, 1280  # pixels of the longer side: faces down to a thirtieth, to a sixtieth of it
CLOSE_SIDE, FACE_SIDE = 320, 160  # for a face that fills the picture
LOOKS = (  # sides and turns, until a face is certain
    *((side, 0) for side in (SIDE, CLOSE_SIDE, FACE_SIDE, FAR_SIDE)),
    *((SIDE, turn) for turn in (45, 315, 90, 270, 180, 135, 225)),
    *((FAR_SIDE, turn) for turn in (45, 315, 90, 270)),
)
# YuNet's score: to count, to count in a turned picture, to be taken as untilted.
CONFIDENT, CERTAIN, UPRIGHT = 0.7, 0.8, 0.92
HAIR = 0.55  # face heights from the top of YuNet's box to the top of the hair


@dataclass(frozen=True)
class Face:
    """A face, from the forehead to the chin, in pixels of the picture; it may reach over the edge."""

    left: float
    top: float
    width: float
    height: float
    up: tuple[float, float] = (0.0, -1.0)  # unit vector to the top of the head
    score: float = 1.0  # how sure the detector is, 0 to 1

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
        x, y = (HAIR * self.side * part for part in self.up)
        right, low = self.left + self.width, self.top + self.height
        return self.left + min(0, x), self.top + min(0, y), right + max(0, x), low + max(0, y)

    def scaled(self, factor: float) -> Face:
        """The same face in a picture `factor` times as large."""
        left, top, width, height = (one * factor for one in (self.left, self.top, self.width, self.height))
        return Face(left, top, width, height, self.up, self.score)

    def as_list(self) -> list[int]:
        """Left, top, width, height in whole pixels, as dataset.json holds it."""
        return [round(value) for value in (self.left, self.top, self.width, self.height)]


@dataclass(frozen=True)
class Detector:
    """Finds faces where it has YuNet's weights, else none; its name is written into dataset.json."""

    name: str
    why: str
    weights: Path | None = None
    sface: Path | None = None
    wanted: np.ndarray | None = None  # features of a face

    def find(self, image: Image.Image) -> list[Face]:
        """The faces of an RGB picture, the largest first, or the one that is most like the wanted face."""
        faces = find_faces(image, self.weights) if self.weights else []
        if self.weights and self.sface and len(faces) > 1:
            boxes = ((*face.centre, face.side) for face in faces)
            close = [image.crop((x - side, y - side, x + side, y + side)) for x, y, side in boxes]
            likeness = np.nan_to_num(face_features(close, self.weights, self.sface) @ self.wanted, nan=-1)
            faces.insert(0, faces.pop(int(likeness.argmax())))
        return faces

    def looking_for(self, photos: Sequence[Image.Image], sface: Path) -> Detector:
        """A detector that puts the person first whom most of these photos share."""
        if self.weights is None:
            return self
        seen = np.nan_to_num(face_features(photos, self.weights, sface))
        return replace(self, name="sface", sface=sface, wanted=seen[(seen @ seen.T).sum(axis=1).argmax()])


def choose_detector(subject_kind: str = "person", drawn: bool = False) -> Detector:
    """YuNet for photographed persons, where its weights are here or can be downloaded; else none."""
    if subject_kind != "person":
        return Detector("not needed", "not looked for, the subject is no person")
    if drawn:
        return Detector("none", "")
    if weights := face_weights(YUNET):
        return Detector("yunet", "looked for by YuNet", weights)
    why = f"not looked for: YuNet's weights ({YUNET}, 230 KB) can't be downloaded now, so photos are cropped "
    why += "where they draw the eye; run it again when online, or put the file into "
    return Detector("none", f"{why}{WEIGHTS_FOLDER.as_posix()}")


def face_weights(file: str) -> Path | None:
    """YuNet's or SFace's weights: here, in the hub's cache, or downloaded from the hub or OpenCV's zoo.

    Source: https://github.com/opencv/opencv_zoo; YuNet, 230 KB, MIT licence; SFace, 37 MB, Apache 2.0.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    place, model = WEIGHTS_FOLDER / file, file.rsplit("_", 1)[0]
    cached = try_to_load_from_cache(f"opencv/{model}", file)
    for path in (place, Path(cached) if isinstance(cached, str) else place):
        if path.is_file() and file_sha256(path) == SHA256[file]:
            return path
    if constants.HF_HUB_OFFLINE:
        return None
    for address in (f"{constants.ENDPOINT}/opencv/{model}/resolve/main/{file}", f"{ZOO}/{model}/{file}"):
        if hashlib.sha256(data := _content(address)).hexdigest() == SHA256[file]:
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


def face_features(pictures: Sequence[Image.Image], yunet: Path, sface: Path) -> np.ndarray:
    """SFace's features (n, 128) of the largest face in each picture, of length 1; NaN where there is none.

    Source: Zhong et al. 2021, "SFace", arXiv:2205.12010.
    """
    _network(yunet, threading.get_ident())  # it makes OpenCV quiet
    import cv2

    recognizer = cv2.FaceRecognizerSF.create(str(sface), "")
    features = np.full((len(pictures), 128), np.nan, np.float32)
    for row, picture in zip(features, pictures, strict=True):
        pixels, found = _rows(ImageOps.contain(picture, (SIDE, SIDE), Image.Resampling.BICUBIC), yunet)
        if len(found):
            largest = max(found, key=lambda face: face[2] * face[3])
            row[:] = recognizer.feature(recognizer.alignCrop(pixels, largest))[0]
            row /= np.linalg.norm(row)
    return features


def find_faces(image: Image.Image, weights: Path) -> list[Face]:
    """The faces of an RGB picture, the largest first, which alone is known to be tilted or lying.

    YuNet looks at the picture, then at a smaller one for close-ups, at a larger one, and at turned ones.

    Source: Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector".
    """
    found: list[Face] = []
    for side, turn in LOOKS:
        found = max(found, _detected(image, side, weights, turn), key=_certainty)
        if _certainty(found) >= CERTAIN:
            break
    found.sort(key=lambda face: -face.width * face.height)
    if found and found[0].score < UPRIGHT:
        found[0] = _turned_until_upright(image, found[0], weights)
    return found


def _certainty(faces: list[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _turned_until_upright(image: Image.Image, face: Face, weights: Path) -> Face:
    """The face as it is seen best when its surroundings are turned; YuNet finds a lying one too small."""
    left, top = (round(middle - 1.5 * face.side) for middle in face.centre)
    around = image.crop((left, top, left + round(3 * face.side), top + round(3 * face.side)))
    seen = [one for turn in range(0, 360, 45) for one in _detected(around, FACE_SIDE, weights, turn)]
    best = max(seen, key=lambda one: one.score, default=face)
    return replace(best, left=best.left + left, top=best.top + top) if best.up != face.up else face


def _detected(image: Image.Image, side: int, weights: Path, turn: int) -> list[Face]:
    """The faces of a picture looked at with a longer side of `side` pixels, turned left by degrees."""
    small = ImageOps.contain(image, (side, side), Image.Resampling.BILINEAR)
    turned = small.rotate(turn, Image.Resampling.BILINEAR, expand=True)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    faces = []
    for left, top, width, height, *_, score in _rows(turned, weights)[1].tolist():
        if turn and score < CERTAIN:
            continue
        x, y = left + (width - turned.width) / 2, top + (height - turned.height) / 2
        x, y = x * cos - y * sin + small.width / 2, x * sin + y * cos + small.height / 2
        width, height = abs(width * cos) + abs(height * sin), abs(width * sin) + abs(height * cos)
        face = Face(x - width / 2, y - height / 2, width, height, (sin, -cos), score)
        faces.append(face.scaled(max(image.size) / side))
    return faces


def _rows(image: Image.Image, weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """A picture as OpenCV reads it, and YuNet's faces in it (n, 15): box, five points, score."""
    pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])  # BGR
    network = _network(weights, threading.get_ident())
    network.setInputSize(image.size)
    _, found = network.detect(pixels)
    return pixels, np.empty((0, 15)) if found is None else found


@cache
def _network(weights: Path, thread: int) -> Any:
    """YuNet for one thread: it holds the size of its input."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # it warns of targets that nobody asked for
    import cv2

    return cv2.FaceDetectorYN.create(str(weights), "", (SIDE, SIDE), CONFIDENT)
