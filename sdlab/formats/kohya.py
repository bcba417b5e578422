"""LoRA weights under the names of kohya's sd-scripts, which A1111, Forge and ComfyUI read."""

from __future__ import annotations

from collections.abc import Mapping

import torch

_PARTS = {"unet": "lora_unet", "text_encoder": "lora_te"}
_MATRICES = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
}


def kohya_weights(
    weights: Mapping[str, torch.Tensor], alphas: Mapping[str, float]
) -> dict[str, torch.Tensor]:
    """Renames a diffusers LoRA: A becomes `lora_down`, B `lora_up`, and alpha gets an entry.

    Args:
        weights: As in `pytorch_lora_weights.safetensors`, `<part>.<module>.lora_A.weight` and so on; A is
            (rank, in), B is (out, rank), or the same with (1, 1) behind for convolutions.
        alphas: Part, `unet` or `text_encoder`, to its lora_alpha.

    Returns:
        For each module, `lora_unet_<its path with _>` or `lora_te_text_model_<its path with _>`:
        `lora_down.weight`, `lora_up.weight` and `alpha`, a number; with DoRA also `dora_scale`.

    Raises:
        ValueError: A name that isn't a LoRA's.

    Source:
        kohya-ss/sd-scripts `networks/lora.py`: modules are named by their path in diffusers' UNet and in
        transformers' CLIPTextModel with its `text_model.`, which transformers 5 leaves out.
    """
    named: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        part, _, rest = name.partition(".")
        matrix = next((end for end in _MATRICES if rest.endswith(f".{end}")), None)
        if part not in _PARTS or matrix is None:
            raise ValueError(f"{name!r} is no weight of a LoRA. Export a LoRA that sdlab or diffusers saved.")
        path = rest.removesuffix(f".{matrix}")
        if part == "text_encoder":
            path = f"text_model.{path.removeprefix('text_model.')}"
        module = f"{_PARTS[part]}_{path.replace('.', '_')}"
        named[f"{module}.{_MATRICES[matrix]}"] = weight.contiguous()
        named[f"{module}.alpha"] = torch.tensor(float(alphas[part]), dtype=weight.dtype)
    return named
