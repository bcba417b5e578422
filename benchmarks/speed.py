"""How fast is `mini` on this machine? Times the import, an image and a training step.

    python benchmarks/speed.py

Medians of several runs. An image: 20 steps with guidance, in batches of 8, VAE included. A step: DreamBooth
with text encoder, one instance and one class image; LoRA of rank 4.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recipes.mini import world
from sdlab import HOMEWORK_A, hyperparameters, prepare, train
from sdlab.machine import describe
from sdlab.sampling import choose_sampling, ready_pipeline, sample


def import_seconds(statement: str) -> float:
    """Median time of a fresh Python that runs a statement."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def image_seconds() -> float:
    """Median time of one image in a batch of 8."""
    sampling = choose_sampling("mini", num_inference_steps=20, guidance_scale=7.5)
    pipeline = ready_pipeline("mini", sampling)
    prompts = [*HOMEWORK_A.fill("sks woman").prompts.values(), *["a photo of woman face"] * 3]
    times = []
    for run in range(4):  # the first one warms up
        start = time.perf_counter()
        sample(pipeline, prompts, range(8 * run, 8 * run + 8), sampling)
        times.append((time.perf_counter() - start) / 8)
    return statistics.median(times[1:])


def step_seconds(method: str, folder: Path) -> float:
    """Median time of a training step, from the log of a short run."""
    chosen = hyperparameters(
        method,
        "mini",
        instance_data_dir=str(folder / "instance_images"),
        class_data_dir=str(folder / "class_images"),
        num_class_images=8,
        train_batch_size=1,
        max_train_steps=60,
        checkpointing_steps=1000,
    )
    rows = train(f"{method}_speed", chosen, root=folder / "experiments", progress=False).log()
    pairs = itertools.pairwise(rows[1:])  # the first row warms up
    return statistics.median((b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairs)


def main() -> None:
    """Measure and print a Markdown table."""
    print(f"{describe()}\n\n| what | seconds |\n|---|---|")
    plain = import_seconds("pass")
    took = import_seconds("import sdlab") - plain
    print(f"| `import sdlab`, beyond Python's own {plain:.2f} | {took:.3f} |")
    print(f"| an image, 20 steps, guidance, batch of 8 | {image_seconds():.2f} |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(world.photograph("woman", folder / "raw")[0].parent, folder / "instance_images", 128)
        print(
            f"| a DreamBooth step, instance + class image | {step_seconds('dreambooth', folder):.3f} |",
            flush=True,
        )
        print(f"| a LoRA step, rank 4 | {step_seconds('lora', folder):.3f} |")


if __name__ == "__main__":
    main()
