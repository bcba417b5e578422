"""Does control run on SD 1.5's true shape, and what memory does it take? Random weights, so no download.

    python benchmarks/control_sd15.py [--resolution 256] [--steps 2] [--work cache_dir/control_sd15]

A pipeline of SD 1.5's configuration gets a LoRA of rank 4 and a ControlNet of the canny ControlNet's
configuration, and a canny map steers two steps. Memory is the process's resident memory.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import psutil
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from peft import LoraConfig
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdlab import Control, mini
from sdlab.control import control_map, control_options, with_controlnets
from sdlab.sampling import Sampling, sample

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def resident() -> float:
    """The process's memory in GB."""
    return psutil.Process().memory_info().rss / 1e9


def pipeline_of_sd15() -> StableDiffusionPipeline:
    """SD 1.5's architecture with random weights and a LoRA; the tokenizer is mini's, whose ids it knows."""
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=ATTENTION, init_lora_weights="gaussian"))
    text_encoder = CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(mini.path() / "tokenizer"),
        unet=unet,
        scheduler=UniPCMultistepScheduler.from_config(
            PNDMScheduler(
                beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
            ).config
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main() -> None:
    """Build, steer two steps, print memory and time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--image", type=Path, default=Path("data/control_images/stretched_arms.png"))
    parser.add_argument("--work", type=Path, default=Path("cache_dir/control_sd15"))
    options = parser.parse_args()
    folder = options.work / "controlnet"
    if not (folder / "config.json").exists():
        ControlNetModel(cross_attention_dim=768).save_pretrained(folder)
    network = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    pipeline = pipeline_of_sd15()
    made = control_map(Control("canny", options.image, model=str(folder)), options.resolution, "sd15")
    before = resident()
    steered = with_controlnets(pipeline, [made])
    for weights in steered.controlnet.parameters():
        weights.sum()  # the file is mapped into memory, which counts from the first use on
    after = resident()
    added = after - before
    print(f"pipeline: {before:.2f} GB; ControlNet: {added:+.2f} GB, its file has {network:.2f} GB")
    print("the UNet is shared:", steered.unet is pipeline.unet)
    side = options.resolution
    sampling = Sampling(num_inference_steps=options.steps, guidance_scale=7.5, width=side, height=side)
    start = time.perf_counter()
    (image,) = sample(steered, ["a photo of sks woman face"], [0], sampling, **control_options([made]))
    seconds = time.perf_counter() - start
    finite = bool(np.isfinite(np.asarray(image, float)).all())
    print(f"{options.steps} steps at {image.size}: {seconds:.0f} s, finite: {finite}, {resident():.2f} GB")


if __name__ == "__main__":
    main()
