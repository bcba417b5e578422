"""Annotators: a picture -> its edges, depth or pose; each library is imported only where it is used."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab import machine, mini
from sdlab.control.maps import canny_map, depth_map, openpose_from_coco, pose_map
from sdlab.models import downloads

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

WAY_OUT = "Check the name and the network, or bring a map (is_map)."
AUX = "controlnet_aux"
AUX_WEIGHTS = "lllyasviel/Annotators"
AUX_DETECTORS = {"canny": "CannyDetector", "depth": "MidasDetector", "pose": "OpenposeDetector"}
PERSON_DETECTOR = "PekingU/rtdetr_r18vd_coco_o365"
PERSON = 0  # COCO's first class
SEEN = 0.3  # joints and people that the models are less sure of don't count
_LEFT_OUT = 0.1  # ViTPose looks at 1.25 times a person's box: the box of a whole picture leaves a tenth out


def annotate(picture: Image.Image, kind: str, source: str, thresholds: tuple[float, float]) -> Image.Image:
    """Draws the control map of an RGB picture, in its size; the two thresholds are canny's."""
    if source == AUX:
        return _by_controlnet_aux(picture, kind, thresholds)
    if kind == "canny":
        return canny_map(picture, *thresholds)
    if kind == "depth":
        return depth_map(estimate_depth(picture, source))
    return pose_map(estimate_pose(picture, source), picture.size)


def estimate_depth(picture: Image.Image, model: str) -> np.ndarray:
    """Estimates nearness (height, width), larger is nearer, with a depth model of transformers."""
    processor, outputs = _run(model, "AutoModelForDepthEstimation", picture)
    found = processor.post_process_depth_estimation(outputs, target_sizes=[picture.size[::-1]])
    return found[0]["predicted_depth"].float().cpu().numpy()


def estimate_pose(picture: Image.Image, model: str) -> list[np.ndarray]:
    """Finds each person's joints with ViTPose: OpenPose's (18, 3), x and y in pixels, 0 where not seen."""
    import numpy as np

    boxes = _people(picture, model)
    if not len(boxes):
        return []
    processor, outputs = _run(model, "VitPoseForPoseEstimation", picture, boxes=[boxes])
    people = []
    for found in processor.post_process_pose_estimation(outputs, boxes=[boxes.copy()])[0]:
        scores = found["scores"].numpy()
        points = np.column_stack([found["keypoints"].numpy(), np.where(scores > SEEN, scores, 0)])
        if (points[:, 2] > 0).any():
            people.append(openpose_from_coco(points))
    return people


def _people(picture: Image.Image, model: str) -> np.ndarray:
    """The boxes of people (n, 4): left, top, width, height; of mini's portraits the whole picture."""
    import numpy as np

    if Path(model) == mini.annotator_path("pose"):
        whole = [_LEFT_OUT, _LEFT_OUT, 1 - 2 * _LEFT_OUT, 1 - 2 * _LEFT_OUT]
        return np.array([whole]) * (*picture.size, *picture.size)
    processor, outputs = _run(PERSON_DETECTOR, "AutoModelForObjectDetection", picture)
    sizes = [picture.size[::-1]]
    found = processor.post_process_object_detection(outputs, target_sizes=sizes, threshold=SEEN)[0]
    boxes = found["boxes"][found["labels"] == PERSON].cpu().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _run(model: str, loader: str, picture: Image.Image, **options: Any) -> tuple[Any, Any]:
    """The processor of a model of transformers, and what the model gives for a picture."""
    import torch

    processor, network = _loaded(model, loader)
    inputs = processor(picture, return_tensors="pt", **options).to(network.device)
    with torch.inference_mode():
        return processor, network(**inputs)


@lru_cache(maxsize=3)
def _loaded(model: str, loader: str) -> tuple[Any, Any]:
    """A model of transformers (a hub id or a folder) and its processor, loaded once."""
    import transformers

    with downloads(model, f"The annotator {model!r}", WAY_OUT):
        processor = transformers.AutoImageProcessor.from_pretrained(model)
        network = getattr(transformers, loader).from_pretrained(model, dtype="float32")
    return processor, network.to(machine.device()).eval()


def _by_controlnet_aux(picture: Image.Image, kind: str, thresholds: tuple[float, float]) -> Image.Image:
    """The annotators of the homeworks; they round sizes to multiples of 64, so the size is set after them."""
    from PIL import Image

    side = max(64, min(picture.size))
    options = {"detect_resolution": side, "image_resolution": side}
    if kind == "canny":
        options |= dict(zip(("low_threshold", "high_threshold"), map(int, thresholds), strict=True))
    found = _aux_detector(kind)(picture, **options)
    return found.convert("RGB").resize(picture.size, Image.Resampling.LANCZOS)


@lru_cache(maxsize=3)
def _aux_detector(kind: str) -> Any:
    """controlnet_aux's annotator of a kind, with its weights."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that timm and it both register
            import controlnet_aux as aux
    except Exception as error:  # a mediapipe or torchvision of another version makes it raise anything
        raise ImportError(
            f"annotator 'controlnet_aux' can't be imported ({error}). Install it: "
            "pip install 'sdlab[controlnet-aux]' (a torchvision of torch's own build; mediapipe, if at all, "
            "older than 0.10.30); or leave annotator out."
        ) from error
    detector = getattr(aux, AUX_DETECTORS[kind])
    if kind == "canny":
        return detector()
    with downloads(AUX_WEIGHTS, f"The annotator {AUX_WEIGHTS!r}", WAY_OUT):
        return detector.from_pretrained(AUX_WEIGHTS).to(machine.device())
