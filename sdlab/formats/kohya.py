"""LoRA weights under the names of kohya's sd-scripts, which A1111, Forge and ComfyUI read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

Configs = Mapping[str, Mapping[str, Any]]
"""`unet` and `text_encoder` to the settings of their adapters, peft's LoraConfig as a dict."""

_PARTS = {"unet": "lora_unet", "text_encoder": "lora_te"}
# peft's names, and the two that diffusers has besides.
_MATRICES = {
    ".lora_A.weight": "lora_down.weight",
    ".lora.down.weight": "lora_down.weight",
    ".lora_linear_layer.down.weight": "lora_down.weight",
    ".lora_B.weight": "lora_up.weight",
    ".lora.up.weight": "lora_up.weight",
    ".lora_linear_layer.up.weight": "lora_up.weight",
    ".lora_magnitude_vector": "dora_scale",
    ".lora_magnitude_vector.weight": "dora_scale",
}


def read_lora(file: str | Path) -> tuple[dict[str, torch.Tensor], Configs]:
    """Reads a LoRA in diffusers' format.

    Args:
        file: `pytorch_lora_weights.safetensors`.

    Returns:
        Its weights, and the settings of its adapters; those are empty in a file without metadata.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(file, "pt") as opened:
        settings = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    configs: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    for name, value in settings.items():
        part, _, key = name.partition(".")
        configs[part][key] = value
    return load_file(file), configs


def kohya_weights(weights: Mapping[str, torch.Tensor], configs: Configs) -> dict[str, torch.Tensor]:
    """Renames a diffusers LoRA: A becomes `lora_down`, B `lora_up`, and alpha gets an entry.

    Args:
        weights: Of `read_lora`. A is (rank, in) and B is (out, rank); of a convolution, A is
            (rank, in, height, width) and B is (out, rank, 1, 1).
        configs: Of `read_lora`; without one, alpha is the rank.

    Returns:
        For each module, `lora_unet_<its path with _>` or `lora_te_text_model_<its path with _>`:
        `lora_down.weight`, `lora_up.weight` and `alpha`, a number; with DoRA also `dora_scale`, (out, 1) or
        (out, 1, 1, 1).

    Raises:
        ValueError: A name that isn't a LoRA's.

    Source:
        kohya-ss/sd-scripts `networks/lora.py`: modules are named by their path in diffusers' UNet and in
        transformers' CLIPTextModel with its `text_model.`, which transformers 5 leaves out. LyCORIS
        `modules/locon.py` for `dora_scale`, with its `wd_on_output`.
    """
    named: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        part, _, rest = name.partition(".")
        ending = next((end for end in _MATRICES if rest.endswith(end)), "")
        if part not in _PARTS or not ending:
            raise ValueError(f"{name!r} is no weight of a LoRA. Export a LoRA that sdlab or diffusers saved.")
        path = rest.removesuffix(ending)
        module = kohya_name(part, path)
        if _MATRICES[ending] == "dora_scale":  # (out,), or (1, out, 1, 1) of a convolution
            weight = weight.reshape(-1, *[1] * max(1, weight.dim() - 1))
        named[f"{module}.{_MATRICES[ending]}"] = weight.contiguous()
        if _MATRICES[ending] == "lora_down.weight":
            alpha = alpha_of(configs.get(part, {}), path, rank=len(weight))
            named[f"{module}.alpha"] = torch.tensor(alpha, dtype=weight.dtype)
    return named


def kohya_name(part: str, path: str) -> str:
    """Gives a module's name.

    Args:
        part: `unet` or `text_encoder`.
        path: Of the module in it, with dots.

    Returns:
        kohya's name, without a dot.
    """
    if part == "text_encoder":
        path = f"text_model.{path.removeprefix('text_model.')}"
    return f"{_PARTS[part]}_{path.replace('.', '_')}"


def alpha_of(config: Mapping[str, Any], path: str, rank: int) -> float:
    """Finds the alpha of a module, by which its addition is scaled: alpha / rank.

    Args:
        config: Settings of the adapter; peft's `lora_alpha`, `alpha_pattern` and `use_rslora` count.
        path: Of the module.
        rank: Of the module.

    Returns:
        Its alpha.
    """
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(patterns, path), config.get("lora_alpha", rank))
    return float(alpha * math.sqrt(rank) if config.get("use_rslora") else alpha)
