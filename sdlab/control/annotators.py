"""Annotators: a picture -> its edges, depth or pose; each library is imported only where it is used."""

from __future__ import annotations

import warnings
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
ANNOTATORS = {
    "canny": "scikit-image",
    "depth": "depth-anything/Depth-Anything-V2-Small-hf",
    "pose": "usyd-community/vitpose-base-simple",
}
PERSON_DETECTOR = "PekingU/rtdetr_r18vd_coco_o365"
PERSON = 0  # COCO's first class
SEEN = 0.3  # joints and people that the models are less sure of don't count
_LEFT_OUT = 0.1  # ViTPose looks at 1.25 times a person's box: the box of a whole picture leaves a tenth out
_NOTHING = {
    "canny": "No edges found in {}. Lower low_threshold and high_threshold, or take one with more contrast.",
    "depth": "No depth found in {}. Take another picture.",
    "pose": "No person found in {}. Take a picture of a person, leave out pose, or bring a map (is_map).",
}


class NothingFound(ValueError):
    """An annotator found nothing in the picture, so its map would be black and control nothing."""


def annotator_source(control: Control, root_name: str) -> str:
    """What makes a control's map: a folder, a hub id, `scikit-image` or `controlnet_aux`; "" for `is_map`."""
    if control.is_map:
        return ""
    if control.annotator:
        return control.annotator
    if root_name == "mini" and control.kind != "canny":  # its annotators know the drawn world
        return str(mini.annotator_path(control.kind))
    return ANNOTATORS[control.kind]


def annotate(picture: Image.Image, control: Control, source: str) -> Image.Image:
    """Draws the control map of an RGB picture, in its size."""
    if source == AUX:
        found = _by_controlnet_aux(picture, control)
    elif control.kind == "canny":
        found = canny_map(picture, control.low_threshold, control.high_threshold)
    elif control.kind == "depth":
        found = depth_map(estimate_depth(picture, source))
    else:
        found = pose_map(estimate_pose(picture, source), picture.size)
    if found.convert("L").getextrema()[1] == 0:
        raise NothingFound(_NOTHING[control.kind].format(control.image))
    return found


def estimate_depth(picture: Image.Image, model: str) -> np.ndarray:
    """Estimates nearness (height, width), larger is nearer, with a depth model of transformers."""
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
    """Finds each person's joints with ViTPose: OpenPose's (18, 3), x and y in pixels, 0 where not seen."""
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
    """The boxes of people (n, 4): left, top, width, height; of mini's portraits the whole picture."""
    import numpy as np
    import torch

    if Path(model) == mini.annotator_path("pose"):
        whole = [_LEFT_OUT, _LEFT_OUT, 1 - 2 * _LEFT_OUT, 1 - 2 * _LEFT_OUT]
        return np.array([whole]) * (*picture.size, *picture.size)
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
    """A model of transformers (a hub id or a folder) and its processor, loaded once."""
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

    side = max(64, min(picture.size))
    options: dict[str, Any] = {"detect_resolution": side, "image_resolution": side}
    if control.kind == "canny":
        options |= {
            "low_threshold": int(control.low_threshold),
            "high_threshold": int(control.high_threshold),
        }
    found = _aux_detector(control.kind)(picture, **options)
    return found.convert("RGB").resize(picture.size, Image.Resampling.LANCZOS)


@lru_cache(maxsize=3)
def _aux_detector(kind: str) -> Any:
    """controlnet_aux's annotator of a kind, with its weights."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that timm and it both register
            import controlnet_aux as aux
    except Exception as error:  # a mediapipe of another version makes it raise anything
        raise ImportError(
            f"annotator 'controlnet_aux' can't be imported ({error}). Install it: "
            "pip install 'sdlab[controlnet-aux]' (and mediapipe, if at all, older than 0.10.30); "
            "or leave annotator out."
        ) from error
    if kind == "canny":
        return aux.CannyDetector()
    detector = aux.MidasDetector if kind == "depth" else aux.OpenposeDetector
    try:
        return detector.from_pretrained(AUX_WEIGHTS).to(machine.device())
    except OSError as error:
        raise _missing(AUX_WEIGHTS, error) from error


def _missing(model: str, error: OSError) -> OSError:
    here = "holds no such model" if Path(model).is_dir() else "isn't on this machine and can't be downloaded"
    return OSError(
        f"The annotator {model!r} {here} ({str(error).splitlines()[0]}). "
        "Check the name and the network, or bring a map (is_map)."
    )
