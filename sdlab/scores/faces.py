"""Likeness of faces: OpenCV's SFace looks at the largest face that YuNet finds."""

from __future__ import annotations

from functools import partial

from sdlab.photos.faces import SFACE, WEIGHTS_FOLDER, face_features, sface_weights, yunet_weights
from sdlab.scores.embedders import Embedder


def face_embedder() -> Embedder | None:
    """SFace, where its weights (37 MB) are here or can be downloaded; else None, and one line says so."""
    yunet, sface = yunet_weights(), sface_weights()
    if yunet is None or sface is None:
        print(
            f"face: not measured, since SFace's weights ({SFACE}, 37 MB) can't be downloaded now; "
            f"score again when online, or put the file into {WEIGHTS_FOLDER.as_posix()}"
        )
        return None
    return Embedder("face", "sface_2021dec", partial(face_features, yunet=yunet, sface=sface))
