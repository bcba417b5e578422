"""LoRA: the base stays as it is; low-rank additions to some of its layers are trained, many at once.

The adapters are peft's. Trainings that share their base and images are computed in one pass: the batch holds
the images of one training after the other, the base sees them as one batch, and each adapter adds its own
B A x to its own share.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import Linear
from torch.nn.functional import pad

from sdlab.config import DreamBooth, LoRA
from sdlab.experiment import Experiment
from sdlab.files import write_folder
from sdlab.formats.names import lean_settings, with_text_model
from sdlab.models import quiet
from sdlab.training.data import generator

# Layers by the end of their names; those that one part hasn't are ignored.
_UNET = {
    "attention": ["to_k", "to_q", "to_v", "to_out.0"],
    "ff": ["ff.net.0.proj", "ff.net.2"],
    # what kohya's scripts call conv: the blocks' convolutions, with the 1×1 ones around attention
    "conv": ["conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj", "proj_in", "proj_out"],
}
_TEXT_ENCODER = {
    "attention": ["q_proj", "k_proj", "v_proj", "out_proj"],
    "ff": ["fc1", "fc2"],
    "conv": [],
}
# What trainings in one pass must have in common. The rest is each one's own.
_COMMON = (
    "pretrained_model_name_or_path",
    "instance_data_dir",
    "class_data_dir",
    "instance_prompt",
    "class_prompt",
    "with_prior_preservation",
    "num_class_images",
    "resolution",
    "train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "max_train_steps",
    "mixed_precision",
    "allow_tf32",
    "cache_latents",
    "train_text_encoder",
    "lora_targets",
    "num_held_out_images",
)


def in_one_pass(planned: Mapping[str, DreamBooth | LoRA]) -> list[dict[str, DreamBooth | LoRA]]:
    """Groups experiments that can be trained in one pass; any other is a group of its own."""
    groups: dict[object, dict[str, DreamBooth | LoRA]] = {}
    for name, chosen in planned.items():
        together = (
            isinstance(chosen, LoRA)
            and "conv" not in chosen.lora_targets
            and not (
                chosen.use_dora or chosen.lora_dropout or chosen.text_encoder_steps or chosen.torch_compile
            )
        )
        key = tuple(getattr(chosen, field) for field in _COMMON) if together else name
        groups.setdefault(key, {})[name] = chosen
    return list(groups.values())


def freeze(pipeline: StableDiffusionPipeline, dtype: torch.dtype) -> None:
    """Keeps the base model's weights as they are, in the precision that they are read in."""
    for part in (pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False)
        with quiet():
            part.to(dtype)


def prepare(pipeline: StableDiffusionPipeline, chosen: LoRA, adapter: str, active: Sequence[str]) -> None:
    """Adds one training's adapters; `active` names those that a pass computes, at the time of the pass."""
    parts = {"unet": pipeline.unet}
    if chosen.train_text_encoder:
        parts["text encoder"] = pipeline.text_encoder
    for name, part in parts.items():
        add_adapter(part, chosen, name, adapter)
        for layer in part.modules():
            if isinstance(layer, Linear) and not (chosen.use_dora or chosen.lora_dropout):
                layer.forward = partial(_forward, layer, active)


def add_adapter(part: Any, chosen: LoRA, name: str, adapter: str = "default") -> None:
    """Adds one model's adapter in float32, initialised from the experiment's seed.

    Args:
        part: The UNet or the text encoder.
        chosen: Rank, alpha, targets, seed …
        name: `unet` or `text encoder`: whose layers, and so that the two start differently.
        adapter: peft's name for it.
    """
    layers = _UNET if name == "unet" else _TEXT_ENCODER
    config = LoraConfig(
        r=chosen.rank,
        lora_alpha=chosen.rank if chosen.lora_alpha is None else chosen.lora_alpha,
        lora_dropout=chosen.lora_dropout,
        use_dora=chosen.use_dora,
        init_lora_weights="gaussian",
        target_modules=[end for kind in chosen.lora_targets.split("+") for end in layers[kind]],
    )
    # peft initialises from torch's global generator, and warns of a second adapter
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(generator(chosen.seed, 0, f"lora of {name}").initial_seed())
        part.add_adapter(config, adapter)
    for weight_name, weight in part.named_parameters():
        weight.requires_grad_(".lora_" in weight_name)  # peft leaves only the newest adapter's so
    cast_training_params([part], torch.float32)


def _forward(layer: Linear, active: Sequence[str], x: torch.Tensor) -> torch.Tensor:
    """Computes W x + scaling · B A x, each active adapter on its share of x, (adapters · images, …, in)."""
    if len(active) == 1:  # the same, a fifteenth of a step faster
        (name,) = active
        low = layer.lora_A[name](x)
        return layer.base_layer(x) + layer.scaling[name] * layer.lora_B[name](low)
    down = _stacked([layer.lora_A[name].weight for name in active])  # (adapters, rank, in)
    up = _stacked([layer.lora_B[name].weight.T for name in active])  # (adapters, rank, out)
    scaling = torch.tensor([layer.scaling[name] for name in active], device=x.device)
    result = layer.base_layer(x)
    shares, results = (one.reshape(len(active), -1, one.shape[-1]) for one in (x, result))
    return torch.baddbmm(results, (shares @ down.mT) * scaling[:, None, None], up).reshape(result.shape)


def _stacked(matrices: list[torch.Tensor]) -> torch.Tensor:
    """Lower ranks are filled up with zeros, which add nothing and, being no weights, stay zero."""
    rank = max(len(matrix) for matrix in matrices)
    return torch.stack([pad(one, (0, 0, 0, rank - len(one))) if len(one) < rank else one for one in matrices])


def export(pipeline: StableDiffusionPipeline, experiment: Experiment, adapter: str = "default") -> None:
    """Saves the adapters as diffusers' safetensors file, with what loading needs to know (lora_alpha)."""
    weights: dict[str, Any] = {}
    for name, part in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder)):
        if config := getattr(part, "peft_config", None):
            named = with_text_model if name == "text_encoder" else str
            layers = {named(key): weight for key, weight in named_weights(part, adapter).items()}
            weights[f"{name}_lora_layers"] = layers
            weights[f"{name}_lora_adapter_metadata"] = lean_settings(config[adapter].to_dict())
    with write_folder(experiment.path / "lora") as folder:
        StableDiffusionPipeline.save_lora_weights(folder, **weights)
    os.replace(experiment.path / "lora" / experiment.lora_file.name, experiment.lora_file)
    (experiment.path / "lora").rmdir()


def named_weights(part: Any, adapter: str = "default") -> dict[str, torch.Tensor]:
    """Gives an adapter's weights under the names that diffusers and transformers read back.

    These are peft's: `convert_state_dict_to_diffusers` would rename the attention alone, and diffusers then
    leaves it out beside other layers. transformers needs `.weight` behind DoRA's magnitudes.
    """
    weights = get_peft_model_state_dict(part, adapter_name=adapter).items()
    return {f"{name}.weight" if name.endswith("_vector") else name: weight for name, weight in weights}
