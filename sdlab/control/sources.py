"""Which ControlNet and which annotator a control uses, and how an image's record names them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdlab import mini
from sdlab.files import fingerprint

if TYPE_CHECKING:
    from sdlab.control.settings import Control

SD15_CONTROLNETS = {
    "canny": "lllyasviel/control_v11p_sd15_canny",
    "depth": "lllyasviel/control_v11f1p_sd15_depth",
    "pose": "lllyasviel/control_v11p_sd15_openpose",
}
ANNOTATORS = {
    "canny": "scikit-image",
    "depth": "depth-anything/Depth-Anything-V2-Small-hf",
    "pose": "usyd-community/vitpose-base-simple",
}


def controlnet_source(control: Control, root_name: str) -> str:
    """Where a ControlNet's weights are.

    Args:
        control: Its kind, and its model where the user chose one.
        root_name: Of the base model: `mini` has ControlNets of its own, all others take those of SD 1.5.

    Returns:
        A folder or a hub id.
    """
    if control.model:
        return control.model
    return str(mini.controlnet_path(control.kind)) if root_name == "mini" else SD15_CONTROLNETS[control.kind]


def annotator_source(control: Control, root_name: str) -> str:
    """What makes a control's map.

    Args:
        control: Its kind, and its annotator where the user chose one.
        root_name: Of the base model: `mini` has annotators of its own, which know the drawn world.

    Returns:
        A folder or a hub id; `scikit-image` or `controlnet_aux`; empty for a map that the user brings.
    """
    if control.is_map:
        return ""
    if control.annotator:
        return control.annotator
    if root_name == "mini" and control.kind != "canny":
        return str(mini.annotator_path(control.kind))
    return ANNOTATORS[control.kind]


def identity(source: str) -> str:
    """Names a model in a record, wherever it lies.

    Args:
        source: A folder, a hub id or a word.

    Returns:
        The fingerprint of a folder's files, else the source itself.
    """
    files = [file for file in Path(source).glob("*") if file.suffix in (".safetensors", ".bin", ".json")]
    return fingerprint(files) if source and files else source
