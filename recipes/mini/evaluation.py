"""Stage `evaluate`: how well the exported model encodes, and how often it draws what the caption says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from recipes.mini import world
from recipes.mini.world.captions import described
from sdlab.mini import reader as reading

from .autoencoder import psnr
from .machine import Machine
from .pictures import HELD_OUT

TOGETHER = 20
SHEET = 64


def evaluate(
    folder: Path,
    pipeline_path: Path,
    reader_path: Path,
    held_out: np.ndarray,
    machine: Machine,
    *,
    samples: int = 1000,
    steps: int = 20,
    guidance_scale: float = 2.0,
) -> dict[str, object]:
    """Measure the exported model; several processes share the sampling.

    Args:
        folder: gets `evaluation.json`, `samples.png` and `samples/`.
        pipeline_path: the exported pipeline.
        reader_path: the exported reader.
        held_out: pictures never trained on, for the PSNR.
        machine: where it runs.
        samples: images to generate from held-out captions.
        steps: inference steps.
        guidance_scale: of the classifier-free guidance.

    Returns:
        What was written to `evaluation.json`: PSNR in dB; per attribute accuracy, 95 % interval and count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_path, torch_dtype=torch.float32)
    pipeline.to(machine.device).set_progress_bar_config(disable=True)
    pictures = asked_pictures(samples)
    images = generate(folder / "samples", pipeline, pictures, machine, steps, guidance_scale)
    if not machine.leads:
        return {}
    found = reading.read(images, reading.load(reader_path))
    result: dict[str, object] = {
        "psnr": psnr(pipeline.vae.to(memory_format=torch.channels_last), held_out, machine),
        "psnr_pictures": len(held_out),
        "samples": samples,
        "num_inference_steps": steps,
        "guidance_scale": guidance_scale,
        "attributes": scores(pictures, found),
    }
    (folder / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    sheet(images[:SHEET]).save(folder / "samples.png")
    print(table(result), flush=True)
    return result


def asked_pictures(count: int) -> list[world.Picture]:
    """Unflawed pictures of the world that were never trained on; their full descriptions are the prompts."""
    found: list[world.Picture] = []
    seed = HELD_OUT
    while len(found) < count:
        picture = world.sample(seed)
        seed += 1
        if picture.flaw == "none":
            found.append(picture)
    return found


def generate(
    folder: Path,
    pipeline: StableDiffusionPipeline,
    pictures: list[world.Picture],
    machine: Machine,
    steps: int,
    guidance_scale: float,
) -> list[Image.Image]:
    """One image per picture's caption, batch by batch, shared by the processes through the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, start in enumerate(range(0, len(pictures), TOGETHER)):
        if index % machine.processes != machine.rank:
            continue
        asked = pictures[start : start + TOGETHER]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(asked))]
        images = pipeline(
            [described(picture) for picture in asked],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=generators,
        ).images
        for i, image in enumerate(images):
            image.save(folder / f"{start + i:04d}.png")
        if machine.leads and index % 10 == 0:
            print(f"evaluate: {start + len(asked)}/{len(pictures)}", flush=True)
    machine.wait()
    return [Image.open(folder / f"{i:04d}.png").convert("RGB") for i in range(len(pictures))]


def scores(pictures: list[world.Picture], found: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Per attribute the share of images that show what the caption says, with a 95 % interval."""
    labels = [world.labels(picture) for picture in pictures]
    result = {}
    for name in world.ATTRIBUTES:
        right = [found[name][i] == label[name] for i, label in enumerate(labels) if label[name] is not None]
        low, high = wilson(sum(right), len(right))
        result[name] = {
            "accuracy": sum(right) / max(1, len(right)),
            "low": low,
            "high": high,
            "count": len(right),
        }
    return result


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927, the score interval."""
    if count == 0:
        return 0.0, 1.0
    z, share = 1.96, right / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def sheet(images: list[Image.Image], columns: int = 8) -> Image.Image:
    """Images side by side on one sheet."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * (width + 4), rows * (height + 4)), "white")
    for i, image in enumerate(images):
        page.paste(image, (i % columns * (width + 4), i // columns * (height + 4)))
    return page


def table(result: dict[str, object]) -> str:
    """The measured figures as lines of text."""
    attributes = result["attributes"]
    assert isinstance(attributes, dict)
    lines = [f"VAE: {result['psnr']:.2f} dB on {result['psnr_pictures']} held-out pictures"]
    lines += [
        f"{name:<16}{s['accuracy']:7.1%}   ({s['low']:.1%} to {s['high']:.1%}, n = {s['count']})"
        for name, s in attributes.items()
    ]
    return "\n".join(lines)
