"""Names of weights: diffusers' own, those of Stable Diffusion's original code, and kohya's for LoRAs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.formats.checkpoints import LORA_DOWN, TEXT, UNET, VAE

if TYPE_CHECKING:
    import torch
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
    "downsamplers.0.": "downsample.",
    "upsamplers.0.": "upsample.",
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
_PARTS = {"unet": "lora_unet", "text_encoder": "lora_te"}
# What ends the names of peft, and the two that diffusers has besides.
_MATRICES = {
    LORA_DOWN: "lora_down.weight",
    r"\.(lora_B|lora\.up|lora_linear_layer\.up)\.weight$": "lora_up.weight",
    r"\.lora_magnitude_vector(\.weight)?$": "dora_scale",
}

Configs = Mapping[str, Mapping[str, Any]]
"""`unet` and `text_encoder` to the settings of their adapters, peft's LoraConfig as a dict."""


def with_text_model(name: str) -> str:
    """A text encoder's weight as all programs call it but transformers 5, which leaves out the start."""
    return f"text_model.{name.removeprefix('text_model.')}"


def original_weights(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """Renames a pipeline's weights to those of CompVis' `stable-diffusion`, the single-file checkpoint.

    The inverse of diffusers' `convert_ldm_unet_checkpoint` and `convert_ldm_vae_checkpoint`.
    """
    named: dict[str, torch.Tensor] = {}
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        weights = part.state_dict()
        for name, original in original_names(part).items():
            weight = weights[name]
            if original.startswith(VAE) and re.search(r"attentions\.0\.to_\w+(\.0)?\.weight", name):
                weight = weight[:, :, None, None]  # the original's attention is made of 1×1 convolutions
            named[original] = weight.detach().contiguous()
    return named


def original_names(part: Any) -> dict[str, str]:
    """All names of weights of a UNet2DConditionModel, AutoencoderKL or CLIPTextModel to the original ones."""
    names, config = list(part.state_dict()), part.config
    if hasattr(config, "layers_per_block") and hasattr(config, "cross_attention_dim"):
        found = [re.match(r"up_blocks\.(\d+)\.attent", name) for name in names]
        attention = {int(one[1]) for one in found if one}
        return {name: UNET + unet_name(name, config.layers_per_block, attention) for name in names}
    if hasattr(config, "block_out_channels"):
        return {name: VAE + vae_name(name, len(config.block_out_channels)) for name in names}
    return {name: f"{TEXT}transformer.{with_text_model(name)}" for name in names}


def unet_name(name: str, layers_per_block: int, with_attention: Iterable[int]) -> str:
    """Gives the original name of a UNet's weight.

    The original counts the places of all blocks in one row: a down block has one for each layer and one for
    its downsampler, an up block one for each layer, of which it has one more. `with_attention` are the up
    blocks that have it, 1 to 3 in Stable Diffusion 1.5.
    """
    row = layers_per_block + 1
    block = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.", name)
    if not block:
        name = _renamed(name, _UNET_RESNET) if name.startswith("mid_block.resnets.") else name
        return _renamed(name, _UNET)
    rest, first = name[block.end() :], int(block[2]) * row
    place = first + int(block[4])
    start = f"input_blocks.{1 + place}" if block[1] == "down" else f"output_blocks.{place}"
    if block[3] == "attentions":
        return f"{start}.1.{rest}"
    if block[3] == "resnets":
        return f"{start}.0.{_renamed(rest, _UNET_RESNET)}"
    if block[3] == "downsamplers":
        return f"input_blocks.{first + row}.0.op.{rest.removeprefix('conv.')}"
    behind = 2 if int(block[2]) in with_attention else 1  # the resnet, and the attention where there is one
    return f"output_blocks.{first + layers_per_block}.{behind}.{rest}"


def vae_name(name: str, blocks: int) -> str:
    """Gives the original name of an AutoencoderKL's weight; its decoder blocks count from outside."""
    name = name.replace("encoder.down_blocks.", "encoder.down.")
    if found := re.match(r"decoder\.up_blocks\.(\d+)\.", name):
        name = f"decoder.up.{blocks - 1 - int(found[1])}.{name[found.end() :]}"
    return _renamed(name, _VAE).replace(".resnets.", ".block.")


def _renamed(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        name = re.sub(rf"(^|\.){re.escape(new)}", rf"\g<1>{old}", name)
    return name


def read_lora(file: str | Path) -> tuple[dict[str, torch.Tensor], Configs]:
    """Reads a LoRA in diffusers' format: weights, and the adapters' settings, empty without metadata."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(file, "pt") as opened:
        settings = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    configs: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    for name, value in settings.items():
        part, _, key = name.partition(".")
        configs[part][key] = value
    return load_file(file), configs


def lean_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """An adapter's settings without peft's defaults, of which older versions don't know all, and without the
    base's place on this disk."""
    from peft import LoraConfig

    defaults = LoraConfig().to_dict() | {"base_model_name_or_path": config.get("base_model_name_or_path")}
    always = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "peft_type")
    lean = {name: value for name, value in config.items() if name in always or value != defaults.get(name)}
    if not isinstance(targets := lean.get("target_modules"), str | None):
        lean["target_modules"] = sorted(targets)  # peft's set has another order in each process
    return lean


def kohya_weights(weights: Mapping[str, torch.Tensor], configs: Configs) -> dict[str, torch.Tensor]:
    """Renames a diffusers LoRA: A becomes `lora_down`, B `lora_up`, and alpha (the rank) gets an entry.

    A is (rank, in) and B is (out, rank); of a convolution, (rank, in, height, width) and (out, rank, 1, 1);
    DoRA's `dora_scale` is (out, 1) or (out, 1, 1, 1).

    Source:
        kohya-ss/sd-scripts `networks/lora.py`: modules are named by their path in diffusers' UNet and in
        transformers' CLIPTextModel with its `text_model.`. LyCORIS `modules/locon.py` for `dora_scale`.
    """
    import torch

    named: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        part, _, rest = name.partition(".")
        ending = next((end for end in _MATRICES if re.search(end, rest)), None)
        if part not in _PARTS or ending is None:
            raise ValueError(f"{name!r} is no weight of a LoRA. Export a LoRA that sdlab or diffusers saved.")
        path, matrix = re.sub(ending, "", rest), _MATRICES[ending]
        full = with_text_model(path) if part == "text_encoder" else path
        module = f"{_PARTS[part]}_{full.replace('.', '_')}"
        if matrix == "dora_scale":  # (out,), or (1, out, 1, 1) of a convolution
            weight = weight.reshape(-1, *[1] * max(1, weight.dim() - 1))
        named[f"{module}.{matrix}"] = weight.contiguous()
        if matrix == "lora_down.weight":
            alpha = _alpha(configs.get(part, {}), path.removeprefix("text_model."), rank=len(weight))
            named[f"{module}.alpha"] = torch.tensor(alpha, dtype=weight.dtype)
    return named


def _alpha(config: Mapping[str, Any], path: str, rank: int) -> float:
    """A module's alpha, by which its addition is scaled: alpha / rank; peft's patterns and rsLoRA count."""
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(patterns, path), config.get("lora_alpha", rank))
    return float(alpha * math.sqrt(rank) if config.get("use_rslora") else alpha)
