"""What a step of SD 1.5's true shape takes, with random weights, through sdlab's own training.

    python benchmarks/sd15_shape.py                  # CPU: a step of DreamBooth and one of LoRA, within 24 GB
    python benchmarks/sd15_shape.py --device cuda    # time and peak memory by precision, checkpointing, Adam

A random model is saved once as a diffusers folder (4.3 GB in a temporary folder, or in --folder). Time and
memory don't depend on the weights' values. The images are 512×512. Memory is the process's resident memory on
the CPU, torch's allocated memory on a GPU, both at their peak from loading to export.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from runs import Task, conditions, make_task, run, settings
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

from sdlab import mini

HOMEWORK = {
    "method": "dreambooth",
    "train_text_encoder": True,
    "with_prior_preservation": True,
    "use_8bit_adam": True,
    "learning_rate": 2e-6,
}
LORA = {"method": "lora", "rank": 4, "learning_rate": 2e-4}
# What finished homeworks report for the attention layers of the UNet.
LORA_WEIGHTS = {4: 797_184, 16: 3_188_736}


def save_random_model(folder: Path) -> Path:
    """Saves a model of SD 1.5's shape with random weights, in float32; one that is there is kept.

    Args:
        folder: Where.

    Returns:
        The folder.

    Source:
        The configurations of `stable-diffusion-v1-5/stable-diffusion-v1-5`; the tokenizer is mini's, since it
        changes neither time nor memory.
    """
    if (folder / "model_index.json").is_file():
        return folder
    torch.manual_seed(0)
    blocks = ("CrossAttn",) * 3 + ("",)
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=768,
            attention_head_dim=8,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in blocks),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(blocks)),
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                projection_dim=768, bos_token_id=0, eos_token_id=2,
            )
        ),
        vae=AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        tokenizer=AutoTokenizer.from_pretrained(Path(mini.path()) / "tokenizer"),
        scheduler=PNDMScheduler.from_pretrained(mini.path(), subfolder="scheduler"),  # SD 1.5's schedule
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def variants(device: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Name, hyperparameters, and whether to compile."""
    names = {"DreamBooth, text encoder, prior 1, 8-bit Adam": HOMEWORK, "LoRA rank 4": LORA}
    if device == "cpu":
        yield from ((name, changes, False) for name, changes in names.items())
        return
    plain = {"DreamBooth, text encoder, prior 1": HOMEWORK | {"use_8bit_adam": False}}
    for name, changes in (plain | names).items():
        for precision in ("no", "bf16"):
            for checkpointing in (False, True):
                for compiled in (False, True):
                    words = f"{name}, {precision}{', checkpointing' * checkpointing}{', compiled' * compiled}"
                    more = {"mixed_precision": precision, "gradient_checkpointing": checkpointing}
                    yield words, changes | more, compiled


def measure(
    task: Task, changes: dict[str, Any], compiled: bool, folder: Path, device: str, steps: int
) -> list[str]:
    """Time of a step, peak memory, trainable weights of one training, as the table's cells."""
    shutil.rmtree(folder, ignore_errors=True)
    chosen = settings(task, **changes, max_train_steps=steps)
    warmup = 1 if device == "cpu" else steps // 4
    done = run("sdlab", chosen, folder, warmup=warmup, device=device, compiled=compiled)
    experiment = done.result.parent if done.result.name == "model" else done.result
    weights = json.loads((experiment / "experiment.json").read_text())["trainable_parameters"]
    if (expected := LORA_WEIGHTS.get(changes.get("rank", 0), weights)) != weights:
        raise RuntimeError(f"A LoRA of rank {changes['rank']} trains {weights:,} weights, not {expected:,}.")
    seconds = [f"{done.step_seconds:.3f}", f"{done.step_processor:.3f}"]
    return [*seconds, f"{done.peak_gb:.2f}", f"{weights:,}", f"{done.whole_seconds:.0f}"]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--folder", type=Path, help="keep the random model here")
    parser.add_argument("--steps", type=int, help="in all; 2 on the CPU (the second is timed), 40 on a GPU")
    options = parser.parse_args()
    steps = options.steps or (2 if options.device == "cpu" else 40)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = save_random_model((options.folder or folder / "base").resolve())
        task = make_task(base, folder, 512, images=2)
        print(f"{conditions(options.device)}\n\nSD 1.5's shape at 512 px, batch 1, {steps} steps\n")
        columns = ["training", "s per step", "processor s per step", "peak memory, GB", "trainable weights"]
        print(f"| {' | '.join(columns)} | whole run, s |\n|{'---|' * 6}", flush=True)
        for title, changes, compiled in variants(options.device):
            cells = measure(task, changes, compiled, folder / "run", options.device, steps)
            print(f"| {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
