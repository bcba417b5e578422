"""How fast are a table's images made, beside a loop of `from_pretrained` and one image a call?

    python benchmarks/images.py [--experiments 9] [--prompts 5] [--images 4] [--batch 20]

The experiments are LoRAs of one step on `mini`, sampled with the profile's settings. Both ways run in turn in
one process, each from nothing: models are loaded anew. Prints for both the seconds, and those of the processor,
which other programs disturb less; their ratios; and the largest difference of two images, in grey levels of 255.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from recipes.mini import world
from sdlab import mini
from sdlab.images import generate
from sdlab.profiles import hyperparameters
from sdlab.prompts import HOMEWORK_A, PromptSet
from sdlab.sampling import choose_sampling
from sdlab.training import train


def experiments(count: int) -> list[str]:
    """LoRAs of one step in the working directory, as many as asked for."""
    world.photograph("woman", Path("photos"), 128)
    names = [f"lora{number}" for number in range(count)]
    for seed, name in enumerate(names):
        chosen = hyperparameters("lora", "mini", instance_data_dir="photos", max_train_steps=1, seed=seed)
        train(name, chosen, progress=False)
    return names


def naive(names: list[str], prompts: PromptSet, images: int) -> list[np.ndarray]:
    """The loop that is written first."""
    sampling, made = choose_sampling("mini"), []
    for name in names:
        pipeline = StableDiffusionPipeline.from_pretrained(mini.path())
        pipeline.load_lora_weights(f"experiments/{name}", weight_name="pytorch_lora_weights.safetensors")
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        for prompt in prompts.prompts.values():
            for seed in range(images):
                image = pipeline(
                    prompt,
                    negative_prompt=prompts.negative_prompt,
                    generator=torch.Generator().manual_seed(seed),
                    num_inference_steps=sampling.num_inference_steps,
                    guidance_scale=sampling.guidance_scale,
                    width=sampling.width,
                    height=sampling.height,
                ).images[0]
                made.append(np.asarray(image, dtype=int))
    return made


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, count in {"experiments": 9, "prompts": 5, "images": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--batch", type=int, help="images at once; the profile's if it isn't given")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        names = experiments(chosen.experiments)
        prompts = HOMEWORK_A.fill("sks woman").first(chosen.prompts)
        clocks = {"": time.perf_counter, " of the processor": time.process_time}
        start = [clock() for clock in clocks.values()]
        ours = generate(names, prompts, images_per_prompt=chosen.images, batch_size=chosen.batch)
        middle = [clock() for clock in clocks.values()]
        theirs = naive(names, prompts, chosen.images)
        end = [clock() for clock in clocks.values()]
        apart = [
            np.abs(np.asarray(Image.open(record.path), dtype=int) - other).max()
            for record, other in zip(ours, theirs, strict=True)
        ]
    for what, a, b, c in zip(clocks, start, middle, end, strict=True):
        print(f"{len(ours)} images: {b - a:.1f} s{what}, the loop {c - b:.1f} s, {(c - b) / (b - a):.2f} ×")
    print(f"largest difference {max(apart)} of 255")


if __name__ == "__main__":
    main()
