"""A pipeline's weights under the names of Stable Diffusion's original code: one file for A1111, ComfyUI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_UNET = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_VAE = {
    "mid_block.resnets.0.": "mid.block_1.",
    "mid_block.attentions.0.": "mid.attn_1.",
    "mid_block.resnets.1.": "mid.block_2.",
    "conv_norm_out.": "norm_out.",
    "conv_shortcut.": "nin_shortcut.",
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
}


def original_weights(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """Renames a pipeline's weights to those of CompVis' `stable-diffusion`, the single-file checkpoint.

    Args:
        pipeline: Stable Diffusion 1.x, or of its architecture; adapters are fused.

    Returns:
        `model.diffusion_model.…`, `first_stage_model.…` and `cond_stage_model.transformer.text_model.…`.

    Source:
        CompVis/stable-diffusion, `ldm/modules`; the inverse of diffusers' `convert_ldm_unet_checkpoint` and
        `convert_ldm_vae_checkpoint`.
    """
    unet, vae, text = (part.state_dict() for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder))
    layers, blocks = pipeline.unet.config.layers_per_block, len(pipeline.vae.config.block_out_channels)
    with_attention = {
        int(found[1]) for name in unet if (found := re.match(r"up_blocks\.(\d+)\.attent", name))
    }
    named = {
        f"model.diffusion_model.{unet_name(name, layers, with_attention)}": weight
        for name, weight in unet.items()
    }
    for name, weight in vae.items():
        # the original's attention is made of 1×1 convolutions
        is_attention = re.search(r"attentions\.0\.to_\w+(\.0)?\.weight", name)
        named[f"first_stage_model.{vae_name(name, blocks)}"] = (
            weight[:, :, None, None] if is_attention else weight
        )
    for name, weight in text.items():  # transformers 5 leaves out `text_model.`
        named[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = weight
    return {name: weight.detach().contiguous() for name, weight in named.items()}


def unet_name(name: str, layers_per_block: int, with_attention: Iterable[int]) -> str:
    """Gives the original name of a UNet's weight.

    Args:
        name: In diffusers' UNet2DConditionModel.
        layers_per_block: Of the UNet, 2 in Stable Diffusion 1.5.
        with_attention: Which up blocks have attention, 1 to 3 in Stable Diffusion 1.5.

    Returns:
        In the original's UNetModel. It counts the places of all blocks in one row: a down block has one for
        each layer and one for its downsampler, an up block one for each layer, of which it has one more.
    """
    row = layers_per_block + 1
    if found := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.", name):
        down, place = found[1] == "down", int(found[2]) * row + int(found[4])
        start = f"input_blocks.{1 + place}" if down else f"output_blocks.{place}"
        kind, rest = found[3], name[found.end() :]
        if kind == "attentions":
            return f"{start}.1.{rest}"
        return f"{start}.0.{_renamed(rest, _UNET_RESNET)}"
    if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.", name):
        return f"input_blocks.{(int(found[1]) + 1) * row}.0.op.{name[found.end() :]}"
    if found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.", name):
        block = int(found[1])
        behind = 2 if block in with_attention else 1  # the resnet, and the attention where there is one
        return f"output_blocks.{block * row + layers_per_block}.{behind}.conv.{name[found.end() :]}"
    if name.startswith("mid_block.resnets."):
        name = _renamed(name, _UNET_RESNET)
    return _renamed(name, _UNET)


def vae_name(name: str, blocks: int) -> str:
    """Gives the original name of an autoencoder's weight.

    Args:
        name: In diffusers' AutoencoderKL.
        blocks: How many resolutions it has, 4 in Stable Diffusion 1.5.

    Returns:
        In the original's AutoencoderKL, which counts the decoder's blocks from the outside.
    """
    if found := re.match(r"encoder\.down_blocks\.(\d+)\.", name):
        name = f"encoder.down.{found[1]}.{name[found.end() :]}"
    elif found := re.match(r"decoder\.up_blocks\.(\d+)\.", name):
        name = f"decoder.up.{blocks - 1 - int(found[1])}.{name[found.end() :]}"
    for new, old in {"downsamplers.0.": "downsample.", "upsamplers.0.": "upsample."}.items():
        name = name.replace(new, old)
    name = _renamed(name, _VAE)
    return name.replace(".resnets.", ".block.")


def _renamed(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        name = re.sub(rf"(^|\.){re.escape(new)}", rf"\g<1>{old}", name)
    return name
