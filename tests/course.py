"""A course's folders without any training: experiments, images, photos, controlled images, for tests."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from PIL import Image

from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.photos import prepare
from sdlab.prompts import PromptSet

PROMPTS = PromptSet(
    {"street": "portrait of sks woman on the street", "moon": "<b onclick=alert(1)>moon</b> $x_{$"}
)
HOSTILE = PromptSet(
    {
        "html": "<img src=x onerror=alert(1)></table><script>alert(2)</script>",
        "formula": "cost $x_{$ and `code` | *bold* [link](javascript:alert(3)) $$ www.a.b",
        "cyrillic": "портрет женщины " * 20,
        "emoji": "😀 👩🏽‍🚀 שלום עולם مرحبا",
    }
)
RATES = {"lora_rank4_lr2e-6": 2e-6, "lora_rank4_lr2e-4": 2e-4, "lora_rank4_lr2e-3": 2e-3}
MEASURED: dict[str, dict[str, Any]] = {
    "base": {"likeness": (0.1, 0.05, 0.15)},
    "dreambooth": {"likeness": (0.9, 0.8, 0.95)},
    "lora_rank4_lr2e-6": {"likeness": 0.11},
    "lora_rank4_lr2e-4": {"likeness": 0.8},
    "lora_rank4_lr2e-3": {"likeness": 0.3},
}


def finished(name: str, chosen: DreamBooth | LoRA, size: float) -> None:
    """An experiment's folder as training leaves it."""
    experiment = Experiment(name)
    experiment.begin(chosen, {"base_fingerprint": "0123456789abcdef"})
    for step in range(10, 101, 10):
        experiment.add_to_log({"step": step, "loss": math.exp(-step / 50), "seconds": step / 10})
    figures = {
        "seconds": 65.0,
        "steps": 100,
        "trainable_parameters": 1000,
        "size_mb": size,
        "final_loss": 0.14,
        "weight_change": {"UNet attention": 0.02},
        "prediction_change": 0.009,
        "diagnosis": "rank 4 at 2e-6 moved the weights by 2 %: expect no likeness.",
    }
    experiment.update(
        status="finished", base="mini", environment={"torch": "2.13", "device": "cpu"}, **figures
    )


def images(name: str, prompts: PromptSet, count: int = 4) -> None:
    """An experiment's images, with EXIF that says where they were made."""
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    folder = Path("results") / name
    folder.mkdir(parents=True, exist_ok=True)
    for prompt in prompts.prompts:
        for n in range(1, count + 1):
            picture = Image.effect_noise((128, 128), 50).convert("RGB")
            picture.save(folder / f"{prompt}_img{n}.png", exif=exif)


def recorded(name: str, prompts: PromptSet, count: int, seed: int = 0, made: str = "2026-01-01") -> None:
    """Says in images.json how an experiment's images were made."""
    rows = [
        {
            "file": f"{prompt}_img{n}.png", "experiment": name, "prompt_name": prompt, "number": n,
            "prompt": text, "negative_prompt": "", "seed": seed + n - 1, "num_inference_steps": 20,
            "guidance_scale": 7.5, "sampler": "dpm++", "width": 128, "height": 128, "model": "x",
            "made": made,
        }
        for prompt, text in prompts.prompts.items()
        for n in range(1, count + 1)
    ]  # fmt: skip
    (Path("results") / name / "images.json").write_text(json.dumps({"images": rows}), encoding="utf-8")


def controlled(experiment: str, prompts: PromptSet, kind: str = "canny", scale: float = 1.0) -> str:
    """Images with control, as `generate(…, control=…)` leaves them; the folder's name."""
    name = f"{experiment}_{kind}_hat" + ("" if scale == 1 else f"_scale{scale:g}")
    images(name, prompts, 1)
    folder = Path("results") / name
    for file in ("control_1.png", "control_1_image.png"):
        Image.effect_noise((128, 128), 50).save(folder / file)
    control = {
        "kind": kind, "image": "hat.png", "image_sha256": "a", "map_sha256": "b", "scale": scale,
        "start": 0.0, "end": 1.0, "low_threshold": 100, "high_threshold": 200, "map": "control_1.png",
        "reference": "control_1_image.png",
    }  # fmt: skip
    rows = [
        {
            "file": f"{prompt}_img1.png", "experiment": experiment, "prompt_name": prompt, "number": 1,
            "prompt": text, "negative_prompt": "", "seed": 0, "num_inference_steps": 20,
            "guidance_scale": 7.5, "sampler": "unipc", "resolution": 128, "model": "x", "control": [control],
        }
        for prompt, text in prompts.prompts.items()
    ]  # fmt: skip
    (folder / "images.json").write_text(json.dumps({"images": rows}), encoding="utf-8")
    return name


def make(folder: Path, prompts: PromptSet = PROMPTS) -> None:
    """All of it, in the working directory: six experiments, the base model's images, seven photos."""
    common = {"instance_data_dir": str(folder / "data/instance_images"), "resolution": 128}
    finished("dreambooth", DreamBooth(learning_rate=2e-6, **common), 17.0)
    for name, rate in RATES.items():
        finished(name, LoRA(rank=4, learning_rate=rate, **common), 0.2)
    for rank in (2, 8):
        finished(f"lora_rank{rank}_lr2e-4", LoRA(rank=rank, learning_rate=2e-4, **common), 0.2)
    for name in ("base", *(path.name for path in Path("experiments").iterdir())):
        images(name, prompts)
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Path("data/raw_images").mkdir(parents=True)
    for n in range(7):
        Image.new("RGB", (200, 150), (30 * n, 90, 90)).save(f"data/raw_images/{n}.jpg", exif=exif)
    prepare(resolution=128)
