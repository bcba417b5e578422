"""Likeness of faces: OpenCV's SFace looks at the largest face that YuNet finds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab.photos.faces import CONFIDENT, SIDE, WEIGHTS_FOLDER, downloaded, yunet_weights
from sdlab.scores.embedders import Embedder

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SFACE = "face_recognition_sface_2021dec.onnx"
SFACE_SHA256 = "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79"
HUB_REPOSITORY = "opencv/face_recognition_sface"
ZOO = "https://github.com/opencv/opencv_zoo/raw/main/models/face_recognition_sface"
FEATURES = 128


def face_embedder() -> Embedder | None:
    """SFace, where its weights (37 MB) are here or can be downloaded; else None, and one line says so.

    Source:
        Zhong et al. 2021, "SFace", arXiv:2205.12010; https://github.com/opencv/opencv_zoo, Apache 2.0.
    """
    yunet, sface = yunet_weights(), downloaded(SFACE, SFACE_SHA256, HUB_REPOSITORY, ZOO)
    if yunet is None or sface is None:
        print(
            f"face: not measured, since SFace's weights ({SFACE}, 37 MB) can't be downloaded now; "
            f"score again when online, or put the file into {WEIGHTS_FOLDER.as_posix()}"
        )
        return None
    return Embedder("face", "sface_2021dec", partial(largest_faces, yunet=yunet, sface=sface))


def largest_faces(pictures: Sequence[Image.Image], *, yunet: Path, sface: Path) -> np.ndarray:
    """SFace's features (n, 128) of the largest face in each picture, NaN where there is none."""
    import cv2
    import numpy as np
    from PIL import Image, ImageOps

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # of targets that nobody asked for
    detector = cv2.FaceDetectorYN.create(str(yunet), "", (SIDE, SIDE), CONFIDENT)
    recognizer = cv2.FaceRecognizerSF.create(str(sface), "")
    features = np.full((len(pictures), FEATURES), np.nan, np.float32)
    for row, picture in zip(features, pictures, strict=True):
        image = np.asarray(ImageOps.contain(picture, (SIDE, SIDE), Image.Resampling.BICUBIC))
        image = np.ascontiguousarray(image[:, :, ::-1])  # OpenCV reads BGR
        detector.setInputSize((image.shape[1], image.shape[0]))
        _, faces = detector.detect(image)
        if faces is not None:
            largest = max(faces, key=lambda face: face[2] * face[3])
            row[:] = recognizer.feature(recognizer.alignCrop(image, largest))[0]
    return features
