"""The mini model: a real but small Stable Diffusion in the package, and the drawn world it was trained on."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """The folder of the mini pipeline in the diffusers layout.

    Returns:
        A folder that `diffusers.StableDiffusionPipeline.from_pretrained` loads.

    Taught in: notebooks/00.
    """
    return Path(__file__).parent / "weights" / "sd"


def controlnet_path(kind: str) -> Path:
    """The folder of the mini model's ControlNet.

    Args:
        kind: `canny`, `depth` or `pose`.

    Returns:
        A folder that `diffusers.ControlNetModel.from_pretrained` loads.
    """
    return Path(__file__).parent / "weights" / "control" / kind


def annotator_path(kind: str) -> Path:
    """The folder of the model that estimates depth or pose in pictures of the mini world.

    Args:
        kind: `depth` or `pose`.

    Returns:
        A folder that transformers loads: a Depth Anything, or a ViTPose.
    """
    return Path(__file__).parent / "weights" / "annotators" / kind
