"""Annotators: a picture -> its edges, depth or pose; each library is imported only where it is used."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab import machine, mini
from sdlab.maps import canny_map, depth_map, openpose_from_coco, pose_map
from sdlab.models import quiet

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from sdlab.control.settings import Control

AUX = "controlnet_aux"
AUX_WEIGHTS = "lllyasviel/Annotators"
PERSON_DETECTOR = "PekingU/rtdetr_r18vd_coco_o365"
PERSON = 0  # COCO's first class
SEEN = 0.3  # joints and people that the models are less sure of don't count
_LEFT_OUT = 0.1  # ViTPose looks at 1.25 times a person's box: the box of a whole picture leaves a tenth out


_MISSING = {
    "canny": "No edges found",
    "depth": "No depth found",
    "pose": "No person found",
}
_WAY_OUT = {
    "canny": "Lower low_threshold and high_threshold, or take a picture with more contrast.",
    "depth": "Take another picture.",
    "pose": "Take a picture of a person, leave out the kind pose, or bring a map of your own (is_map).",
}


class NothingFound(ValueError):
    """An annotator found nothing in the picture, so its map would be black and control nothing."""


def annotate(picture: Image.Image, control: Control, source: str) -> Image.Image:
    """Draws the control map of a picture.

    Args:
        picture: RGB.
        control: Kind and thresholds.
        source: The annotator, see `annotator_source`.

    Returns:
        RGB of the picture's size.

    Raises:
        NothingFound: There are no edges, no depth, no person.
        ImportError: controlnet_aux was asked for and isn't installed.
        OSError: A model isn't on this machine and can't be downloaded.
    """
    if source == AUX:
        found = _by_controlnet_aux(picture, control)
    elif control.kind == "canny":
        found = canny_map(picture, control.low_threshold, control.high_threshold)
    elif control.kind == "depth":
        found = depth_map(estimate_depth(picture, source))
    else:
        found = pose_map(estimate_pose(picture, source), picture.size)
    if found.convert("L").getextrema()[1] == 0:
        raise NothingFound(f"{_MISSING[control.kind]} in {control.image}. {_WAY_OUT[control.kind]}")
    return found


def estimate_depth(picture: Image.Image, model: str) -> np.ndarray:
    """Estimates relative depth with a transformers model.

    Args:
        picture: RGB.
        model: Hub id or folder that `AutoModelForDepthEstimation` loads: Depth Anything, DPT …

    Returns:
        Nearness, float (height, width), larger is nearer.

    Raises:
        OSError: The model isn't on this machine and can't be downloaded.
    """
    import torch

    processor, network = _loaded(model, "AutoModelForDepthEstimation")
    inputs = processor(images=picture, return_tensors="pt").to(network.device)
    with torch.inference_mode():
        depth = network(**inputs).predicted_depth[:, None].float()
        depth = torch.nn.functional.interpolate(
            depth, picture.size[::-1], mode="bicubic", align_corners=False
        )
    return depth[0, 0].cpu().numpy()


def estimate_pose(picture: Image.Image, model: str) -> list[np.ndarray]:
    """Finds people and their joints with ViTPose.

    Args:
        picture: RGB.
        model: Hub id or folder that `VitPoseForPoseEstimation` loads.

    Returns:
        For each person OpenPose's 18 points, (18, 3): x and y in pixels, and how sure, 0 where not seen.

    Raises:
        OSError: A model isn't on this machine and can't be downloaded.
    """
    import numpy as np
    import torch

    boxes = _people(picture, model)
    if not len(boxes):
        return []
    processor, network = _loaded(model, "VitPoseForPoseEstimation")
    inputs = processor(picture, boxes=[boxes], return_tensors="pt").to(network.device)
    with torch.inference_mode():
        outputs = network(**inputs)
    people = []
    for found in processor.post_process_pose_estimation(outputs, boxes=[boxes.copy()])[0]:
        scores = found["scores"].numpy()
        points = np.column_stack([found["keypoints"].numpy(), np.where(scores > SEEN, scores, 0)])
        if (points[:, 2] > 0).any():
            people.append(openpose_from_coco(points))
    return people


def _people(picture: Image.Image, model: str) -> np.ndarray:
    """The boxes of people, (n, 4): left, top, width, height; of mini's portraits the whole picture."""
    import numpy as np
    import torch

    if Path(model) == mini.annotator_path("pose"):
        margins = [_LEFT_OUT, _LEFT_OUT, 1 - 2 * _LEFT_OUT, 1 - 2 * _LEFT_OUT]
        return np.array([margins]) * (*picture.size, *picture.size)
    processor, network = _loaded(PERSON_DETECTOR, "AutoModelForObjectDetection")
    inputs = processor(images=picture, return_tensors="pt").to(network.device)
    with torch.inference_mode():
        outputs = network(**inputs)
    sizes = torch.tensor([picture.size[::-1]])
    found = processor.post_process_object_detection(outputs, target_sizes=sizes, threshold=SEEN)[0]
    boxes = found["boxes"][found["labels"] == PERSON].cpu().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


@lru_cache(maxsize=3)
def _loaded(model: str, loader: str) -> tuple[Any, Any]:
    """A model of transformers and its processor, loaded once."""
    import transformers

    try:
        with quiet():
            processor = transformers.AutoImageProcessor.from_pretrained(model)
            network = getattr(transformers, loader).from_pretrained(model, dtype="float32")
    except OSError as error:
        raise _missing(model, error) from error
    return processor, network.to(machine.device()).eval()


def _by_controlnet_aux(picture: Image.Image, control: Control) -> Image.Image:
    """The annotators of the homeworks; they round sizes to multiples of 64, so the size is set after them."""
    from PIL import Image

    try:
        import controlnet_aux as aux
    except Exception as error:  # a mediapipe of another version makes it raise anything
        raise ImportError(
            f"annotator 'controlnet_aux' can't be imported ({error}). Install it: "
            "pip install 'sdlab[controlnet-aux]' (and mediapipe, if at all, older than 0.10.30); "
            "or leave annotator out."
        ) from error
    side = {"detect_resolution": max(64, min(picture.size)), "image_resolution": max(64, min(picture.size))}
    if control.kind == "canny":
        thresholds = {
            "low_threshold": int(control.low_threshold),
            "high_threshold": int(control.high_threshold),
        }
        found = aux.CannyDetector()(picture, **thresholds, **side)
    else:
        detector = _aux_detector("MidasDetector" if control.kind == "depth" else "OpenposeDetector")
        found = detector(picture, **side)
    return found.convert("RGB").resize(picture.size, Image.Resampling.LANCZOS)


@lru_cache(maxsize=2)
def _aux_detector(name: str) -> Any:
    import controlnet_aux as aux

    try:
        return getattr(aux, name).from_pretrained(AUX_WEIGHTS).to(machine.device())
    except OSError as error:
        raise _missing(AUX_WEIGHTS, error) from error


def _missing(model: str, error: OSError) -> OSError:
    return OSError(
        f"The annotator {model!r} isn't on this machine and can't be downloaded "
        f"({str(error).splitlines()[0]}). Check the name and the network, or bring a map of your own "
        "(is_map)."
    )
