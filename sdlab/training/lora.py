"""LoRA: the base stays as it is; low-rank additions to some of its layers are trained, by peft."""

from __future__ import annotations

import os
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, get_peft_model_state_dict

from sdlab.config import LoRA
from sdlab.experiment import Experiment
from sdlab.files import write_folder
from sdlab.models import quiet
from sdlab.training.data import generator

# Layers by the end of their names; those that one part hasn't are passed over.
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


def prepare(pipeline: StableDiffusionPipeline, hyperparameters: LoRA, dtype: torch.dtype) -> None:
    """Adds the adapters and marks their weights to train.

    Args:
        pipeline: The base model, in float32.
        hyperparameters: Of the experiment.
        dtype: What frozen weights may be kept in; the adapters are float32.
    """
    for part in (pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False)
        with quiet():
            part.to(dtype)
    add_adapter(pipeline.unet, hyperparameters, "unet")
    if hyperparameters.train_text_encoder:
        add_adapter(pipeline.text_encoder, hyperparameters, "text encoder")


def add_adapter(part: Any, hyperparameters: LoRA, name: str) -> None:
    """Adds one model's adapter, initialised from the experiment's seed.

    Args:
        part: The UNet or the text encoder.
        hyperparameters: Rank, alpha, targets, seed …
        name: `unet` or `text encoder`: whose layers, and so that the two start differently.
    """
    rank = hyperparameters.rank
    layers = _UNET if name == "unet" else _TEXT_ENCODER
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if hyperparameters.lora_alpha is None else hyperparameters.lora_alpha,
        lora_dropout=hyperparameters.lora_dropout,
        use_dora=hyperparameters.use_dora,
        init_lora_weights="gaussian",
        target_modules=[end for kind in hyperparameters.lora_targets.split("+") for end in layers[kind]],
    )
    with torch.random.fork_rng(devices=[]):  # peft initialises from torch's global generator
        torch.manual_seed(generator(hyperparameters.seed, 0, f"lora of {name}").initial_seed())
        part.add_adapter(config)
    cast_training_params([part], torch.float32)


def export(pipeline: StableDiffusionPipeline, experiment: Experiment) -> None:
    """Saves the adapters as diffusers' safetensors file, with what loading needs to know (lora_alpha).

    Args:
        pipeline: Trained.
        experiment: Whose folder it goes to.

    Raises:
        DiskFull: The disk is full.
    """
    weights: dict[str, Any] = {}
    for name, part in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder)):
        if config := getattr(part, "peft_config", None):
            weights[f"{name}_lora_layers"] = named_weights(part)
            # peft would write where the base lies on this disk
            settings = config["default"].to_dict() | {"base_model_name_or_path": None}
            weights[f"{name}_lora_adapter_metadata"] = settings
    with write_folder(experiment.path / "lora") as folder:
        StableDiffusionPipeline.save_lora_weights(folder, **weights)
    os.replace(experiment.path / "lora" / experiment.lora_file.name, experiment.lora_file)
    (experiment.path / "lora").rmdir()


def named_weights(part: Any) -> dict[str, torch.Tensor]:
    """Gives an adapter's weights under the names that diffusers and transformers read back.

    Args:
        part: The UNet or the text encoder.

    Returns:
        peft's names; `convert_state_dict_to_diffusers` would rename the attention alone, and diffusers then
        leaves it out beside other layers. transformers needs `.weight` behind DoRA's magnitudes.
    """
    weights = get_peft_model_state_dict(part).items()
    return {f"{name}.weight" if name.endswith("_vector") else name: weight for name, weight in weights}
