"""ControlNets: which one, loaded once, and put around a pipeline without a second copy of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.control.sources import controlnet_source
from sdlab.models import quiet

if TYPE_CHECKING:
    import torch
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

    from sdlab.control.making import ControlMap


@lru_cache(maxsize=3)
def load_controlnet(source: str, dtype: torch.dtype, device: torch.device) -> ControlNetModel:
    """Loads a ControlNet once; experiments and scales share it.

    Args:
        source: A folder or a hub id.
        dtype: Of its weights.
        device: Where it computes.

    Returns:
        The ControlNet.

    Raises:
        OSError: It isn't on this machine and can't be downloaded.
    """
    from diffusers import ControlNetModel

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
    """Puts ControlNets around a pipeline, which shares all its weights.

    Args:
        pipeline: On its device, with its sampler.
        maps: One for each ControlNet, at least one.

    Returns:
        The pipeline with control.

    Raises:
        ValueError: A ControlNet is made for another base model.
        OSError: A ControlNet can't be loaded.
    """
    from diffusers import StableDiffusionControlNetPipeline

    networks = []
    for one in maps:
        source = controlnet_source(one.control, one.root_name)
        network = load_controlnet(source, pipeline.dtype, pipeline.device)
        _check(network, pipeline, source)
        networks.append(network)
    with quiet():
        controlled = StableDiffusionControlNetPipeline.from_pipe(
            pipeline, controlnet=networks[0] if len(networks) == 1 else networks, dtype=pipeline.dtype
        )
    controlled.set_progress_bar_config(disable=True)
    return controlled


def control_options(maps: Sequence[ControlMap]) -> dict[str, Any]:
    """What a pipeline from `with_controlnets` is called with, besides prompts and sampler.

    Args:
        maps: As given to `with_controlnets`; each controls all images of a batch.

    Returns:
        Keyword arguments of the pipeline.
    """
    options: dict[str, list[Any]] = {
        "image": [one.image for one in maps],
        "controlnet_conditioning_scale": [float(one.control.scale) for one in maps],
        "control_guidance_start": [one.control.start for one in maps],
        "control_guidance_end": [one.control.end for one in maps],
    }
    return {name: values[0] if len(maps) == 1 else values for name, values in options.items()}


def _check(network: ControlNetModel, pipeline: StableDiffusionPipeline, source: str) -> None:
    """Its outputs are added to the UNet's, so their shapes must be the same."""
    for name in ("in_channels", "block_out_channels", "cross_attention_dim"):
        ours, theirs = _plain(network.config[name]), _plain(pipeline.unet.config[name])
        if ours != theirs:
            raise ValueError(
                f"The ControlNet {Path(source).as_posix()!r} is made for another base model: its {name} is "
                f"{ours}, the UNet's is {theirs}. Take one for this base, or leave model out."
            )


def _plain(value: Any) -> Any:
    """Configs hold lists where they were read from JSON, and tuples where they weren't."""
    return tuple(value) if isinstance(value, list) else value
