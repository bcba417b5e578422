"""What a CUDA machine does, in one command: steps a second, peak memory, seconds an image, in float32 and half.

    python benchmarks/gpu.py [--minutes 25] [--output gpu]
    python benchmarks/gpu.py --smoke          # mini on the CPU, two steps a row: does the command run?

It needs no network: the weights are random, in SD 1.5's shape. Each row is written to `gpu.json` and `gpu.md` at
once, so a run that is killed keeps what it had; a row that runs out of memory says so, and the next goes on. Rows
for which no time is left are named.

`scripts' loop` is what diffusers' `train_dreambooth.py` and `train_dreambooth_lora.py` do in a step, in one
process with ours: each image is read, resized and encoded, each prompt encoded, AdamW as accelerate prepares it.
`benchmarks/against_diffusers.py --device cuda` runs the scripts themselves, where a checkout is at hand.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from PIL import Image, ImageOps
from runs import Task, conditions, make_task, settings
from sd15_shape import save_random_model

from sdlab import machine, mini
from sdlab.config import DreamBooth, LoRA, from_dict
from sdlab.experiment import Experiment
from sdlab.files import write_bytes
from sdlab.models import quiet, resolve
from sdlab.profiles import hyperparameters
from sdlab.sampling import choose_sampling, image_files, ready_pipeline, sample
from sdlab.training.loop import train_step
from sdlab.training.memory import is_out_of_memory, now, peak_memory_gb, reset_peak_memory
from sdlab.training.reckoning import configurations, reckon
from sdlab.training.setup import load_model, start

BARS = """
Bars: DreamBooth at least 1.3 × the scripts' loop at equal precision and 3 × by default (beside the scripts' float32,
which the homework uses); LoRA at least 2 ×; full DreamBooth at most 10 GB, LoRA at most 4 GB.
"""
PROMPT = "portrait of sks woman face, on the street, lights, midnight"


@dataclass(frozen=True)
class Row:
    """One line of the table; `said` in place of figures where there are none."""

    what: str
    program: str
    settings: str
    seconds: float | None = None  # a step, or an image
    ratio: float | None = None  # to the scripts' loop, or the loop of one image a call, at the same settings
    to_float32: float | None = None  # to the scripts' loop in float32
    peak_gb: float | None = None
    reckoned_gb: float | None = None
    said: str = ""


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    task: Task
    device: torch.device
    half: str  # `fp16` or `bf16`: what this GPU is good at
    steps: int
    warmup: int
    sampling_steps: int
    batch: int  # images at once

    def chosen(self, method: str, **changes: Any) -> DreamBooth | LoRA:
        """Homework B's settings: with 8-bit Adam, at batch 1."""
        own = {"dreambooth": {"train_text_encoder": True, "with_prior_preservation": True}, "lora": {"rank": 4}}
        return from_dict(settings(self.task, method, **own[method], use_8bit_adam=True) | changes)

    def default(self, method: str) -> DreamBooth | LoRA:
        """The same by this machine's profile."""
        ours = hyperparameters(method, str(self.task.base), train_batch_size=1, lr_scheduler="constant")
        names = ("mixed_precision", "gradient_checkpointing", "use_8bit_adam", "allow_tf32")
        return self.chosen(method, **{name: getattr(ours, name) for name in names})

    def files(self, chosen: DreamBooth | LoRA) -> list[list[Path]]:
        """The images of a training, by source."""
        folders = [self.task.instance, self.task.classes][: 1 + chosen.with_prior_preservation]
        return [image_files(folder) for folder in folders]


def seconds_of(bench: Bench, step: Callable[[], object]) -> float:
    """The mean time of a step after the warm-up."""
    for _ in range(bench.warmup):
        step()
    began = now(bench.device)
    for _ in range(bench.steps):
        step()
    return (now(bench.device) - began) / bench.steps


def plain_pipeline(bench: Bench, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """The base as diffusers alone loads it."""
    with quiet():
        return StableDiffusionPipeline.from_pretrained(bench.task.base, safety_checker=None, dtype=dtype)


def scripts_loop(bench: Bench, chosen: DreamBooth | LoRA) -> Callable[[], None]:
    """A step of diffusers' scripts, ready to be taken.

    Source: diffusers `examples/dreambooth/train_dreambooth.py` and `train_dreambooth_lora.py`, v0.40.0.
    """
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=chosen.mixed_precision)
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[chosen.mixed_precision]
    pipeline = plain_pipeline(bench)
    unet, text_encoder, vae = pipeline.unet, pipeline.text_encoder, pipeline.vae.requires_grad_(False)
    vae.to(accelerator.device, dtype)
    text_encoder.requires_grad_(chosen.train_text_encoder)
    if not chosen.train_text_encoder:
        text_encoder.to(accelerator.device, dtype)
    if isinstance(chosen, LoRA):
        unet.requires_grad_(False).to(accelerator.device, dtype)
        targets = ["to_k", "to_q", "to_v", "to_out.0"]
        ranks = {"r": chosen.rank, "lora_alpha": chosen.rank}
        unet.add_adapter(LoraConfig(**ranks, init_lora_weights="gaussian", target_modules=targets))
        cast_training_params([unet], torch.float32)
    trained = [one for part in (unet, text_encoder) for one in part.parameters() if one.requires_grad]
    optimizer = _adam(trained, chosen)
    if chosen.train_text_encoder:
        unet, text_encoder, optimizer = accelerator.prepare(unet, text_encoder, optimizer)
    else:
        unet, optimizer = accelerator.prepare(unet, optimizer)
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    prompts = [chosen.instance_prompt, chosen.class_prompt][: 1 + chosen.with_prior_preservation]
    files, taken = bench.files(chosen), iter(range(10**9))
    unet.train()
    text_encoder.train()

    def step() -> None:
        number = next(taken)
        images = [pixels(group[number % len(group)], chosen.resolution) for group in files]
        latents = vae.encode(torch.stack(images).to(accelerator.device, dtype)).latent_dist.sample()
        latents = latents * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        count = schedule.config.num_train_timesteps
        timesteps = torch.randint(0, count, (len(latents),), device=latents.device)
        noisy = schedule.add_noise(latents, noise, timesteps)
        tokens = pipeline.tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        embeddings = text_encoder(tokens.to(accelerator.device))[0]
        prediction = unet(noisy, timesteps, embeddings, return_dict=False)[0]
        losses = (prediction.float() - noise.float()).square().mean(dim=(1, 2, 3))
        accelerator.backward(losses.sum())  # the prior's weight is 1
        accelerator.clip_grad_norm_(trained, chosen.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _adam(trained: list[torch.nn.Parameter], chosen: DreamBooth | LoRA) -> torch.optim.Optimizer:
    """AdamW with 8-bit states where bitsandbytes runs, as in the scripts."""
    with suppress(Exception):
        from bitsandbytes.optim import AdamW8bit

        if chosen.use_8bit_adam:
            return AdamW8bit(trained, lr=chosen.learning_rate)
    return torch.optim.AdamW(trained, lr=chosen.learning_rate)


def pixels(file: Path, side: int) -> torch.Tensor:
    """An image as the scripts read it, (3, side, side) in -1 … 1."""
    with Image.open(file) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 127.5 - 1


def our_step(bench: Bench, *planned: DreamBooth | LoRA) -> Callable[[], object]:
    """A step of sdlab's own loop: of one training, or of several LoRAs in one pass."""

    def silent(text: str) -> None:
        pass

    base = resolve(str(bench.task.base))
    model = load_model(base, planned[0], bench.files(planned[0]), silent)
    trainings = [start(model, Experiment(f"run{n}"), one, silent) for n, one in enumerate(planned)]
    return partial(train_step, trainings)


def training_row(bench: Bench, what: str, program: str, words: str, chosen: DreamBooth | LoRA) -> Row:
    """Steps of one training, by one of the two programs."""
    step = scripts_loop(bench, chosen) if program == "scripts' loop" else our_step(bench, chosen)
    seconds, peak = seconds_of(bench, step), peak_memory_gb()
    reckoned = reckon(configurations(plain_pipeline(bench)), chosen).step / 1e9 if program == "sdlab" else None
    return Row(what, program, words, seconds, peak_gb=peak, reckoned_gb=reckoned)


def sweep_row(bench: Bench, count: int) -> Row:
    """Several LoRAs in one pass, beside the same ones after each other; `seconds` is of one LoRA's step."""
    chosen = bench.default("lora")
    planned = [replace(chosen, learning_rate=chosen.learning_rate / (1 + n)) for n in range(count)]
    single = seconds_of(bench, our_step(bench, planned[0]))
    machine.free_memory()
    reset_peak_memory()
    together = seconds_of(bench, our_step(bench, *planned)) / count
    words = f"{chosen.mixed_precision}; the ratio is to one by one"
    return Row(f"{count} LoRAs in one pass", "sdlab", words, together, single / together, None, peak_memory_gb())


def images_row(bench: Bench, program: str, words: str, compiled: bool) -> Row:
    """An image of the profile's steps: one a call from `from_pretrained`, or by sdlab in a batch."""
    sampling = choose_sampling(str(bench.task.base), num_inference_steps=bench.sampling_steps)
    number = 1 if program == "one image a call" else bench.batch
    if program == "one image a call":
        dtype = torch.float16 if bench.device.type == "cuda" else torch.float32
        pipeline = plain_pipeline(bench, dtype).to(bench.device)
        pipeline.set_progress_bar_config(disable=True)
    else:
        pipeline = ready_pipeline(str(bench.task.base), sampling)
    if compiled:
        pipeline.unet = torch.compile(pipeline.unet)
    once = replace(bench, warmup=1, steps=max(1, bench.steps // 10))
    seconds = seconds_of(once, lambda: sample(pipeline, [PROMPT] * number, range(number), sampling)) / number
    return Row("an image", program, words, seconds, peak_gb=peak_memory_gb())


def rows(bench: Bench, compiled: bool) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Each row without figures, and what measures it; the most important first."""
    names = {"dreambooth": "DreamBooth, text encoder, prior", "lora": "LoRA rank 4"}

    def training(method: str, program: str, words: str, chosen: DreamBooth | LoRA) -> Any:
        about = (names[method], program, words)
        return Row(*about), partial(training_row, bench, *about, chosen)

    for precision, words in (("no", "float32"), (bench.half, bench.half)):
        for method in names:
            chosen = bench.chosen(method, mixed_precision=precision)
            yield training(method, "scripts' loop", words, chosen)
            yield training(method, "sdlab", words, chosen)
    for method in names:
        yield training(method, "sdlab", "this machine's profile", bench.default(method))
    batch = f"{bench.batch} at once"
    for program, words in (("one image a call", "float16"), ("sdlab", f"float16, {batch}")):
        yield Row("an image", program, words), partial(images_row, bench, program, words, False)
    yield Row("LoRAs in one pass", "sdlab", ""), partial(sweep_row, bench, 4)
    if compiled:
        for method in names:
            chosen = replace(bench.default(method), torch_compile=True)
            yield training(method, "sdlab", "this machine's profile, compiled", chosen)
        words = f"float16, {batch}, compiled"
        yield Row("an image", "sdlab", words), partial(images_row, bench, "sdlab", words, True)


def measured(empty: Row, measure: Callable[[], Row], done: list[Row]) -> Row:
    """A row with its figures and ratios, or with what went wrong."""
    machine.free_memory()
    reset_peak_memory()
    try:
        row = measure()
    except Exception as error:  # one row that fails must not lose the others
        reason = "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        return replace(empty, said=reason.splitlines()[0][:80])
    theirs = [one for one in done if one.what == row.what and one.program != "sdlab" and one.seconds]
    same = [one for one in theirs if row.settings.startswith(one.settings)]
    float32 = [one for one in theirs if one.settings == "float32"]
    if row.program == "sdlab" and row.seconds:
        row = replace(row, ratio=same[0].seconds / row.seconds) if same else row
        row = replace(row, to_float32=float32[0].seconds / row.seconds) if float32 else row
    return row


def markdown(rows: list[Row], about: str) -> str:
    """The table that docs/speed.md shows."""
    head = ["what", "program", "settings", "per second", "ratio", "beside float32", "peak GB", "reckoned GB"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        rate = f"{1 / row.seconds:.3g}" if row.seconds else row.said
        figures = (row.ratio, row.to_float32, row.peak_gb, row.reckoned_gb)
        lines.append([row.what, row.program, row.settings, rate, *("" if f is None else f"{f:.2f}" for f in figures)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{about}\n\n{table}\n{BARS}"


def main() -> None:
    """Measures row by row, and writes what is there after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25, help="no row begins after this")
    parser.add_argument("--output", type=Path, default=Path("gpu"), help="of the files, without their endings")
    parser.add_argument("--steps", type=int, default=40, help="of a row, after 8 that aren't timed")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    began, output = time.monotonic(), options.output.resolve()
    here = machine.this_machine()
    if options.smoke:
        os.environ["ACCELERATE_USE_CPU"] = "1"
    elif here.device != "cuda":
        raise SystemExit(f"This needs a CUDA GPU: {here.device_reason}. To see whether it runs: --smoke.")
    done: list[Row] = []
    with tempfile.TemporaryDirectory() as name, chdir(name):
        base = mini.path() if options.smoke else save_random_model(Path("base").resolve())
        task = make_task(Path(base), Path(name), 64 if options.smoke else 512, images=2 if options.smoke else 8)
        half = "bf16" if options.smoke or here.dtype == "bfloat16" else "fp16"
        counts = (1, 1, 2, 2) if options.smoke else (options.steps, 8, 30, 8)
        bench = Bench(task, machine.device(), half, *counts)
        about = f"{conditions(bench.device.type)}; {'mini' if options.smoke else 'SD 1.5 shape'}, batch 1"
        for empty, measure in rows(bench, compiled=not options.smoke):
            if time.monotonic() - began > 60 * options.minutes:
                done.append(replace(empty, said="no time was left"))
            else:
                done.append(measured(empty, measure, done))
            print(done[-1], flush=True)
            text = json.dumps({"conditions": about, "rows": [asdict(row) for row in done]}, indent=1)
            write_bytes(output.with_suffix(".json"), text.encode())
            write_bytes(output.with_suffix(".md"), markdown(done, about).encode())
    print(f"\n{output.with_suffix('.md').read_text()}")
    if options.smoke and (failed := [row for row in done if row.said]):
        raise SystemExit(f"{len(failed)} rows failed, such as {failed[0].what}: {failed[0].said}")


if __name__ == "__main__":
    main()
