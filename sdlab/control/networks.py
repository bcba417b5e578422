"""ControlNets: which one, loaded once, and put around a pipeline without a second copy of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.models import quiet

if TYPE_CHECKING:
    import torch
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

    from sdlab.control.making import ControlMap

SHAPE = ("in_channels", "block_out_channels", "cross_attention_dim")


@lru_cache(maxsize=3)  # experiments and scales share a ControlNet
def load_controlnet(source: str, dtype: torch.dtype, device: torch.device) -> ControlNetModel:
    """Loads a ControlNet from a folder or the hub."""
    from diffusers import ControlNetModel

    if Path(source).exists() and not (Path(source) / "config.json").is_file():
        raise ValueError(
            f"{source!r} is no ControlNet: a folder with config.json and its weights is needed. "
            "Name such a folder or a hub id, or leave model out."
        )
    try:
        with quiet():
            return ControlNetModel.from_pretrained(source, dtype=dtype).to(device)
    except OSError as error:
        raise OSError(
            f"The ControlNet {source!r} isn't on this machine and can't be downloaded "
            f"({str(error).splitlines()[0]}). Check the name and the network, or take base 'mini', "
            "which needs neither."
        ) from error


def with_controlnets(
    pipeline: StableDiffusionPipeline, maps: Sequence[ControlMap]
) -> StableDiffusionControlNetPipeline:
    """Puts a ControlNet for each map around a pipeline, which keeps its weights, device and sampler."""
    from diffusers import StableDiffusionControlNetPipeline

    networks = [_fitting(one.controlnet, pipeline) for one in maps]
    with quiet():
        controlled = StableDiffusionControlNetPipeline.from_pipe(
            pipeline, controlnet=networks[0] if len(networks) == 1 else networks, dtype=pipeline.dtype
        )
    controlled.set_progress_bar_config(disable=True)
    return controlled


def control_options(maps: Sequence[ControlMap]) -> dict[str, Any]:
    """What a pipeline from `with_controlnets` is called with, besides prompts and sampler."""
    options: dict[str, list[Any]] = {
        "image": [one.image for one in maps],
        "controlnet_conditioning_scale": [float(one.control.scale) for one in maps],
        "control_guidance_start": [one.control.start for one in maps],
        "control_guidance_end": [one.control.end for one in maps],
    }
    return {name: values[0] if len(maps) == 1 else values for name, values in options.items()}


def _fitting(source: str, pipeline: StableDiffusionPipeline) -> ControlNetModel:
    """A ControlNet whose outputs have the shapes of the UNet's, to which they are added."""
    network = load_controlnet(source, pipeline.dtype, pipeline.device)
    for name in SHAPE:
        ours, theirs = network.config[name], pipeline.unet.config[name]
        if str(ours).strip("[]()") != str(theirs).strip("[]()"):  # a list where it was read from JSON
            raise ValueError(
                f"The ControlNet {Path(source).as_posix()!r} is made for another base model: its {name} is "
                f"{ours}, the UNet's is {theirs}. Take one for this base, or leave model out."
            )
    return network
