"""Stage `export`: what was trained, in the diffusers layout, in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor as ImageProcessor

from sdlab.formats.conversion import save_pipeline
from sdlab.mini.reader import Reader

from . import world


def export_pipeline(
    folder: Path,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    scaling_factor: float,
) -> None:
    """Save a pipeline that plain `StableDiffusionPipeline.from_pretrained(folder)` loads.

    Args:
        folder: becomes the pipeline's folder; what was there is replaced in one rename.
        vae: the autoencoder.
        text_encoder: the text encoder.
        tokenizer: the tokenizer.
        unet: the UNet.
        scaling_factor: what latents are multiplied by for the UNet, written into the VAE's config.
    """
    vae.register_to_config(scaling_factor=scaling_factor)
    scheduler = PNDMScheduler(  # SD 1.5's own sampler and its configuration
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    save_pipeline(pipeline.to(dtype=torch.float16), beside)
    _load_in_full_precision(beside / "text_encoder" / "config.json")
    _replace(folder, beside)


def export_reader(path: Path, reader: Reader, accuracies: dict[str, float]) -> None:
    """Save the reader's weights in half precision, beside them attributes, subjects and accuracy.

    Args:
        path: the safetensors file.
        reader: trained.
        accuracies: attribute -> share of held-out drawn pictures read rightly.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in reader.state_dict().items()
    }
    beside = path.with_suffix(".part")
    save_file(half, beside)
    beside.replace(path)
    description = {
        "attributes": world.ATTRIBUTES,
        "subjects": {key: world.traits(subject) for key, subject in world.SUBJECTS.items()},
        "held_out_accuracy": accuracies,
    }
    path.with_name("reader.json").write_text(json.dumps(description, indent=2) + "\n")


def export_clip(folder: Path, clip: CLIPModel, tokenizer: CLIPTokenizer, measured: dict[str, object]) -> None:
    """Save a CLIP that plain `CLIPModel.from_pretrained(folder)` loads, and beside it how well it judges.

    Args:
        folder: becomes the model's folder; what was there is replaced in one rename.
        clip: trained.
        tokenizer: its tokenizer.
        measured: on held-out pictures.
    """
    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    clip.half().save_pretrained(beside, safe_serialization=True)
    tokenizer.save_pretrained(beside)
    side = clip.config.vision_config.image_size
    processor = CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor.save_pretrained(beside)
    _load_in_full_precision(beside / "config.json")
    (beside / "clip.json").write_text(json.dumps(measured, indent=2) + "\n")
    _replace(folder, beside)


def export_model(
    folder: Path, model: ControlNetModel | PreTrainedModel, processor: ImageProcessor | None = None
) -> None:
    """Save a ControlNet or an annotator that plain `from_pretrained(folder)` loads.

    Args:
        folder: becomes the model's folder; what was there is replaced in one rename.
        model: trained.
        processor: brings pictures to the form that the model takes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    model.half().save_pretrained(beside, safe_serialization=True)
    if processor is not None:
        processor.save_pretrained(beside)
    _replace(folder, beside)


def _load_in_full_precision(config: Path) -> None:
    """Plain `from_pretrained` loads UNet and VAE in float32; transformers does so only where it is told."""
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "dtype": "float32"}, indent=2) + "\n")


def _replace(folder: Path, beside: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
