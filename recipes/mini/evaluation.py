"""Stage `evaluate`: how well the exported model encodes, how often and how sharply it draws the caption."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from transformers import VitPoseForPoseEstimation

from recipes.mini import world
from recipes.mini.world.captions import described
from recipes.mini.world.figure import keypoints
from sdlab.control.maps import COCO
from sdlab.mini import reader as reading

from .autoencoder import as_tensor, psnr, reconstruct
from .machine import Machine
from .pictures import HELD_OUT, SIZE

TOGETHER = 20
SURE = 0.3
"""A joint that the pose estimator is less sure of is not found."""

REFERENCE = HELD_OUT + 100_000
"""Seeds from here on are the drawn pictures that samples are compared with."""

SHEET = 64

AIM = 0.95
AIMS = {"hair_style": 0.92}
WHOLE_FIGURES = {"gender": 0.92}
"""The least share of samples that show an attribute as asked; of whole figures alone."""


def evaluate(
    folder: Path,
    weights: Path,
    held_out: np.ndarray,
    machine: Machine,
    *,
    samples: int = 1000,
    steps: int = 20,
    guidance_scale: float,
) -> dict[str, Any]:
    """Measure the exported model; several processes share the sampling.

    Args:
        folder: gets `evaluation.json`, `samples.png` and `samples/`.
        weights: the exported pipeline (`sd/`), reader and annotators.
        held_out: pictures never trained on, for the PSNR.
        machine: where it runs.
        samples: images to generate from held-out captions.
        steps: inference steps.
        guidance_scale: of the classifier-free guidance.

    Returns:
        What was written to `evaluation.json`: PSNR in dB; per attribute accuracy, 95 % interval and count;
        the Fréchet ratio; the shares of images with a whole person.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(weights / "sd", torch_dtype=torch.float32)
    pipeline.to(machine.device).set_progress_bar_config(disable=True)
    pictures = asked_pictures(samples)
    images = generate(folder / "samples", pipeline, pictures, machine, steps, guidance_scale)
    if not machine.leads:
        return {}
    reader = reading.load(weights / "reader" / "reader.safetensors")
    found = reading.read(images, reader)
    decoded = autoencoded(pipeline.vae, [world.draw(picture) for picture in pictures], machine)
    result: dict[str, Any] = {
        "psnr": psnr(pipeline.vae.to(memory_format=torch.channels_last), held_out, machine),
        "psnr_pictures": len(held_out),
        "samples": samples,
        "num_inference_steps": steps,
        "guidance_scale": guidance_scale,
        "reader": json.loads((weights / "reader" / "reader.json").read_text())["held_out_accuracy"],
        "attributes": scores(pictures, found),
        "whole_figures": scores(pictures, found, framing="full height"),
        "frechet_ratio": frechet_ratio(
            *(
                embedded(shown, reader)
                for shown in (images, decoded, [world.draw(p) for p in asked_pictures(samples, REFERENCE)])
            )
        ),
    }
    if (weights / "annotators" / "pose").is_dir():
        result["whole_people"] = {
            name: whole_people(shown, pictures, weights / "annotators" / "pose")
            for name, shown in (("sampled", images), ("autoencoded", decoded))
        }
    (folder / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    sheet(images[:SHEET]).save(folder / "samples.png")
    print(table(result), flush=True)
    return result


def asked_pictures(count: int, first_seed: int = HELD_OUT) -> list[world.Picture]:
    """Unflawed pictures of the world that were never trained on; their full descriptions are the prompts."""
    found: list[world.Picture] = []
    seed = first_seed
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


def scores(
    pictures: list[world.Picture], found: dict[str, np.ndarray], framing: str | None = None
) -> dict[str, dict[str, float]]:
    """Per attribute the share of images (of a framing) that show what the caption says, 95 % interval."""
    unknown: dict[str, int | None] = dict.fromkeys(world.ATTRIBUTES)
    labels = [world.labels(p) if framing in (None, p.framing) else unknown for p in pictures]
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


def autoencoded(vae: AutoencoderKL, images: list[Image.Image], machine: Machine) -> list[Image.Image]:
    """Images through the autoencoder: as sharp as a sample can become."""
    vae.to(memory_format=torch.channels_last)
    decoded = []
    for start in range(0, len(images), TOGETHER):
        batch = as_tensor(np.stack([np.asarray(one) for one in images[start : start + TOGETHER]]), machine)
        pixels = ((reconstruct(vae, batch, machine) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        decoded += [Image.fromarray(one) for one in pixels.cpu().numpy()]
    return decoded


@torch.no_grad()
def embedded(images: list[Image.Image], reader: reading.Reader) -> np.ndarray:
    """The reader's features, (n, 128)."""
    arrays = np.stack([np.asarray(image) for image in images])
    batches = torch.from_numpy(arrays).permute(0, 3, 1, 2).split(TOGETHER)
    return torch.cat([reader.embed(batch.float() / 127.5 - 1) for batch in batches]).double().numpy()


def frechet_ratio(
    sampled: np.ndarray, decoded: np.ndarray, drawn: np.ndarray, groups: int = 20
) -> dict[str, float]:
    """How much farther samples are from drawn pictures than autoencoded pictures are; 1 is as good as can be.

    Args:
        sampled: features of samples, (n, d).
        decoded: of the autoencoded pictures of the same captions, (n, d).
        drawn: of other drawn pictures, (n, d).
        groups: of the jackknife, each left out once. (A bootstrap's repeated pictures shift the distance.)

    Returns:
        `value`, and the ends of its 95 % interval `low` and `high`.

    Source: Heusel et al. 2017, arXiv:1706.08500, equation 6, in the features of the reader.
    """

    def log_ratio(kept: np.ndarray) -> float:
        return math.log(frechet(sampled[kept], drawn[kept]) / frechet(decoded[kept], drawn[kept]))

    group = np.arange(len(sampled)) % groups
    value = log_ratio(group >= 0)
    without = [log_ratio(group != one) for one in range(min(groups, len(sampled)))]
    half = 1.96 * math.sqrt((groups - 1) * float(np.var(without)))
    return {"value": math.exp(value), "low": math.exp(value - half), "high": math.exp(value + half)}


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """The Fréchet distance of two sets of features, as if each were normally distributed."""
    apart = one.mean(axis=0) - other.mean(axis=0)
    first, second = np.cov(one.T), np.cov(other.T)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * shared)


def whole_people(
    images: list[Image.Image], pictures: list[world.Picture], annotator: Path
) -> dict[str, float]:
    """The share of images whose joints are all found, each where drawn people of that framing have it.

    Where: from the nose, in distances of the ears, in the range of the drawn pictures and a fifth more.
    All: those that nearly every drawn picture of that framing shows.
    """
    found = joints(images, annotator)
    drawn = np.stack([keypoints(picture, SIZE)[list(COCO)] for picture in pictures])
    framings = np.array([picture.framing for picture in pictures])
    whole = np.zeros(len(images), bool)
    for framing in np.unique(framings):
        mine = framings == framing
        true, seen = by_the_head(drawn[mine]), found[mine][..., 2] > SURE
        low, high = true.min(axis=0), true.max(axis=0)
        room = 0.1 * (high - low) + 0.2
        place = by_the_head(found[mine])
        right = ((place > low - room) & (place < high + room)).all(axis=-1)
        needed = drawn[mine][..., 2].mean(axis=0) > 0.95
        whole[mine] = (right | ~seen).all(axis=1) & seen[:, needed].all(axis=1)
    low_end, high_end = wilson(int(whole.sum()), len(whole))
    return {"share": float(whole.mean()), "low": low_end, "high": high_end, "count": len(whole)}


@torch.no_grad()
def joints(images: list[Image.Image], annotator: Path) -> np.ndarray:
    """COCO's joints in each image, (n, 17, 3): x and y in pixels, and how sure, 0 to 1."""
    network = VitPoseForPoseEstimation.from_pretrained(annotator, dtype="float32").eval()
    arrays = np.stack([np.asarray(image) for image in images])
    batches = torch.from_numpy(arrays).permute(0, 3, 1, 2).split(TOGETHER)
    maps = torch.cat([network(batch.float() / 127.5 - 1).heatmaps for batch in batches])
    side = maps.shape[-1]
    best, where = maps.flatten(2).max(dim=-1)
    return torch.stack(
        [where % side * SIZE / (side - 1), where // side * SIZE / (side - 1), best], -1
    ).numpy()


def by_the_head(points: np.ndarray) -> np.ndarray:
    """Joints (n, 17, 3) relative to the nose in distances of the ears, (n, 17, 2)."""
    nose, ears = points[:, :1, :2], points[:, 3:5, :2]
    apart = np.linalg.norm(ears[:, 0] - ears[:, 1], axis=-1).clip(1)
    return (points[..., :2] - nose) / apart[:, None, None]


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


def table(result: dict[str, Any]) -> str:
    """The measured figures in Markdown; bold is what misses its aim."""
    attributes, whole = result["attributes"], result["whole_figures"]
    lines = ["| attribute | drawn | sampled | aim | whole figures, sampled |", "|---|---|---|---|---|"]
    for name in sorted(attributes, key=lambda name: -attributes[name]["accuracy"]):
        aim = AIMS.get(name, AIM)
        sampled = _share(attributes[name], aim)
        figures = _share(whole[name], WHOLE_FIGURES.get(name, 0))
        lines.append(f"| {name} | {result['reader'][name]:.1%} | {sampled} | {aim:.0%} | {figures} |")
    ratio = result["frechet_ratio"]
    lines += [
        "",
        f"- autoencoder: {result['psnr']:.2f} dB on {result['psnr_pictures']} held-out pictures",
        f"- Fréchet ratio: {ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
    ]
    people = result.get("whole_people", {}).items()
    return "\n".join(lines + [f"- whole people, {name}: {_share(share)}" for name, share in people])


def _share(measured: dict[str, float], aim: float = 0) -> str:
    """A share with its interval."""
    share = measured.get("accuracy", measured.get("share", 0))
    words = f"{share:.1%} ({measured['low']:.0%} to {measured['high']:.0%})"
    return words if share >= aim else f"**{words}**"
