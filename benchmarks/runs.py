"""One training by sdlab or by diffusers' example script: same base, files and flags, a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from recipes.mini import world
from sdlab import prepare
from sdlab.machine import this_machine

PROBE = Path(__file__).with_name("probe.py")
SCRIPTS = {"dreambooth": "train_dreambooth.py", "lora": "train_dreambooth_lora.py"}
INSTANCE_PROMPT, CLASS_PROMPT = "a photo of sks woman face", "a photo of woman face"


@dataclass(frozen=True)
class Task:
    """What both programs get.

    Args:
        base: A diffusers folder.
        instance: Folder of the instance images, and of nothing else.
        classes: Folder of the class images, and of nothing else.
        held_out: Photos of the same subject that aren't trained on.
        resolution: Side of all images in pixels.
    """

    base: Path
    instance: Path
    classes: Path
    held_out: list[Path]
    resolution: int


@dataclass(frozen=True)
class Run:
    """What one training took and gave.

    Args:
        result: The folder of the trained model or LoRA.
        step_seconds: Mean over the steps after the warm-up.
        step_processor: The same of the processor's seconds, which other programs hardly change.
        whole_seconds: Of the process, from start to end.
        peak_gb: 10⁹ bytes.
        losses: Of each batch.
    """

    result: Path
    step_seconds: float
    step_processor: float
    whole_seconds: float
    peak_gb: float
    losses: list[float]


def make_task(base: Path, folder: Path, resolution: int, *, images: int = 16) -> Task:
    """Draws photos of one subject, prepares them, and holds every fourth one out.

    Args:
        base: A diffusers folder.
        folder: Where to put the images.
        resolution: Side of the images in pixels.
        images: How many instance images at most, and class images: drawn portraits of other women.

    Returns:
        The task.
    """
    raw = world.photograph("woman", folder / "raw")[0].parent
    prepared = sorted(prepare(raw, folder / "prepared", resolution, progress=False).folder.glob("*.png"))
    held_out = prepared[1::4]
    trained = [file for file in prepared if file not in held_out]
    (folder / "instance").mkdir(exist_ok=True)
    (folder / "classes").mkdir(exist_ok=True)
    for file in trained[:images]:  # diffusers' script takes each file of the folder for an image
        shutil.copy(file, folder / "instance")
    women = (picture for seed in range(10_000) if (picture := world.sample(seed)).gender == "woman")
    for number in range(images):
        world.draw(next(women), resolution).save(folder / "classes" / f"{number:02d}.png")
    return Task(base, folder / "instance", folder / "classes", held_out, resolution)


def settings(task: Task, method: str, **changes: Any) -> dict[str, Any]:
    """Gives the homework's hyperparameters, under the names of diffusers' flags.

    Args:
        task: For its folders.
        method: `dreambooth` or `lora`.
        **changes: What differs from homework B's common parameters.

    Returns:
        `method`, and flags to values.
    """
    flags: dict[str, Any] = {
        "pretrained_model_name_or_path": str(task.base),
        "instance_data_dir": str(task.instance),
        "instance_prompt": INSTANCE_PROMPT,
        "resolution": task.resolution,
        "train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "checkpointing_steps": 100_000,
        "mixed_precision": "no",
        "seed": 31,
    }
    if changes.get("with_prior_preservation"):
        flags |= {"class_data_dir": str(task.classes), "class_prompt": CLASS_PROMPT}
        flags |= {"num_class_images": len(list(task.classes.iterdir())), "prior_loss_weight": 1.0}
    return {"method": method, **flags, **changes}


def run(
    program: str, chosen: dict[str, Any], folder: Path, *, warmup: int, device: str, compiled: bool = False
) -> Run:
    """Trains once.

    Args:
        program: `sdlab`, or the folder of diffusers' sources.
        chosen: From `settings`, with `max_train_steps`.
        folder: For the result; must not be there.
        warmup: Steps that aren't timed.
        device: `cpu` or `cuda`.
        compiled: With torch's inductor: sdlab by its `torch_compile`, diffusers' script by accelerate.

    Returns:
        What it took and gave.

    Raises:
        RuntimeError: The program failed; the message holds the end of what it printed.
    """
    folder.mkdir(parents=True)
    if classes := chosen.get("class_data_dir"):  # sdlab leaves a lock there, diffusers reads all files
        chosen = chosen | {"class_data_dir": str(shutil.copytree(classes, folder / "classes"))}
    steps, measured = chosen["max_train_steps"], folder / "measured.json"
    words, result = words_and_result(program, chosen, folder, compiled)
    command = [sys.executable, str(PROBE), str(measured), str(warmup), str(steps), *words]
    by_accelerate = compiled and program != "sdlab"
    variables = {"ACCELERATE_DYNAMO_BACKEND": "inductor" if by_accelerate else "no", "HF_HUB_OFFLINE": "1"}
    variables |= {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    began = time.perf_counter()
    done = subprocess.run(  # in a folder of its own, so that sdlab finds no latents from the run before
        command, env=os.environ | variables, cwd=folder, capture_output=True, text=True
    )
    whole = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    seen = json.loads(measured.read_text())
    seconds, processor = (
        (seen[name][steps - 1] - seen[name][warmup - 1]) / (steps - warmup)
        for name in ("seconds", "processor")
    )
    if (result / "model").is_dir():
        result = result / "model"
    return Run(result, seconds, processor, whole, seen["peak_gb"], seen["losses"])


def words_and_result(
    program: str, chosen: dict[str, Any], folder: Path, compiled: bool
) -> tuple[list[str], Path]:
    """The program as the probe reads it, and the folder of its result."""
    if program == "sdlab":
        result = folder / "experiments" / "run"
        values = json.dumps(chosen | {"torch_compile": compiled})
        return ["sdlab", str(result.parent), result.name, values], result
    script = Path(program).resolve() / "examples" / "dreambooth" / SCRIPTS[chosen["method"]]
    return [str(script), f"--output_dir={folder / 'output'}", *as_flags(chosen)], folder / "output"


def as_flags(chosen: dict[str, Any]) -> list[str]:
    """Writes hyperparameters as diffusers' scripts read them."""
    flags = []
    for name, value in chosen.items():
        if value is True:
            flags.append(f"--{name}")
        elif name != "method" and value is not False:
            flags.append(f"--{name}={value}")
    return flags


def load(base: Path, result: Path | None) -> StableDiffusionPipeline:
    """Loads what either program left, by diffusers alone; a LoRA becomes part of the weights.

    Args:
        base: A diffusers folder.
        result: From `Run`, or None for the base itself.

    Returns:
        The pipeline on the CPU.
    """
    is_lora = result is not None and (result / "pytorch_lora_weights.safetensors").is_file()
    folder = base if result is None or is_lora else result
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    if is_lora:
        pipeline.load_lora_weights(result)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    return pipeline


@torch.no_grad()
def validation_loss(task: Task, result: Path | None, device: str, levels: int = 10) -> float:
    """Computes the mean squared error of the predicted noise on the photos that were held out.

    Args:
        task: For the photos.
        result: From `Run`, or None for the base itself.
        device: `cpu` or `cuda`.
        levels: Timesteps, evenly spaced; each photo meets each, with a noise that is always the same.

    Returns:
        The mean over photos and timesteps.
    """
    pipeline = load(task.base, result).to(device)
    random = torch.Generator("cpu").manual_seed(0)
    prompt = pipeline.encode_prompt(INSTANCE_PROMPT, device, 1, False)[0]  # (1, 77, dim)
    losses = []
    for file in task.held_out:
        with Image.open(file) as image:
            pixels = pipeline.image_processor.preprocess(image, task.resolution, task.resolution)
        latents = pipeline.vae.encode(pixels.to(device)).latent_dist.mean * pipeline.vae.config.scaling_factor
        for level in range(levels):
            timestep = torch.tensor([int(1000 * (level + 0.5) / levels)], device=device)
            noise = torch.randn(latents.shape, generator=random).to(device)
            noisy = pipeline.scheduler.add_noise(latents, noise, timestep)
            predicted = pipeline.unet(noisy, timestep, prompt).sample
            losses.append((predicted - noise).square().mean().item())
    return sum(losses) / len(losses)


def conditions(device: str) -> str:
    """Says what was measured on: machine, versions, load.

    Args:
        device: `cpu` or `cuda`.

    Returns:
        One line.
    """
    machine = this_machine()
    where = torch.cuda.get_device_name() if device == "cuda" else machine.processor
    packages = ("torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}; {where}, {machine.cores} cores, OMP_NUM_THREADS={threads}, "
        f"load average {load}; Python {sys.version.split()[0]}, {versions}"
    )
