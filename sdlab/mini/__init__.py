"""The mini model: a real but small Stable Diffusion in the package, and the drawn world it was trained on."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """The folder of the mini pipeline in the diffusers layout.

    Returns:
        A folder that `diffusers.StableDiffusionPipeline.from_pretrained` loads.

    Taught in: notebooks/02.
    """
    return Path(__file__).parent / "weights" / "sd"
