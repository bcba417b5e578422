"""Everything a training step needs, made ready: parts, data, optimizer; and why each was chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import EMAModel

from sdlab import machine
from sdlab.experiment import Experiment, Hyperparameters
from sdlab.models import fuse, load_pipeline
from sdlab.photos import read_captions
from sdlab.training import dreambooth, lora
from sdlab.training.data import Prompts, prompts_of_images, tokenize
from sdlab.training.latents import CACHE, Encoded, Latents, Source, encode_images
from sdlab.training.optimizer import make_lr_scheduler, make_optimizer

RECIPES: dict[str, ModuleType] = {"dreambooth": dreambooth, "lora": lora}
_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Training:
    """One experiment's training, ready for its next step.

    Args:
        hyperparameters: Of the experiment.
        accelerator: Device, precision, gradients.
        pipeline: The base model's parts (with a LoRA's adapters).
        unet: The pipeline's, as accelerate wraps it.
        noise_scheduler: The noise schedule.
        sources: Latents of the instance images, and of the class images.
        held_out: Latents of the instance images that aren't trained on.
        prompts: The images' embeddings; the held-out ones come after the other instance images.
        weights: What is trained, by name.
        optimizer: Over these weights.
        lr_scheduler: Of the optimizer's learning rate.
        ema: The weights' running mean, if it is asked for.
    """

    hyperparameters: Hyperparameters
    accelerator: Accelerator
    pipeline: StableDiffusionPipeline
    unet: torch.nn.Module
    noise_scheduler: DDPMScheduler
    sources: list[Source]
    held_out: Latents | None
    prompts: Prompts
    weights: dict[str, torch.nn.Parameter]
    optimizer: Any
    lr_scheduler: Any
    ema: EMAModel | None

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Has the weights as they will be saved, without dropout, while the block runs."""
        parts = (self.pipeline.unet, self.pipeline.text_encoder)
        for part in parts:
            part.eval()
        if self.ema is not None:
            self.ema.store(self.weights.values())
            self.ema.copy_to(self.weights.values())
        try:
            yield
        finally:
            if self.ema is not None:
                self.ema.restore(self.weights.values())
            for part in parts:
                part.train()

    def freeze_text_encoder(self) -> None:
        """Stops training the text encoder and encodes the prompts for the last time."""
        for name, weight in self.weights.items():
            if name.startswith("text_encoder."):
                weight.requires_grad_(False)
        self.prompts.freeze()

    def export(self, experiment: Experiment) -> None:
        """Saves what was trained, in diffusers' format.

        Args:
            experiment: Whose folder it goes to.
        """
        if self.ema is not None:
            self.ema.copy_to(self.weights.values())
        RECIPES[self.hyperparameters.method].export(self.pipeline, experiment)


def set_up(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    files: Sequence[Sequence[Path]],
    say: Callable[[str], None],
    held_out: Sequence[Path] = (),
) -> Training:
    """Loads the base model and the images and gets a training ready for its first step.

    Args:
        experiment: For the folder of other experiments, which may be the base.
        hyperparameters: Of the experiment.
        files: The instance images, and with prior preservation the class images.
        say: Told what is chosen, and why.
        held_out: Instance images that aren't trained on.

    Returns:
        The training, at step 0.

    Raises:
        ValueError: An image can't be read.
    """
    AcceleratorState._reset_state()  # or a second training in this process couldn't have another precision
    accelerator = Accelerator(mixed_precision=hyperparameters.mixed_precision)
    device = accelerator.device
    say(f"device: {device.type}, because {machine.choose_device()[1]}")
    say(f"mixed precision: {accelerator.mixed_precision}, as asked for")
    pipeline = fuse(load_pipeline(hyperparameters.pretrained_model_name_or_path, root=experiment.root))
    sources = _sources(pipeline, hyperparameters, files, device, say)
    held = encode_images(pipeline.vae, held_out, hyperparameters.resolution, device) if held_out else None
    RECIPES[hyperparameters.method].prepare(pipeline, hyperparameters, _DTYPES[accelerator.mixed_precision])
    for part in (pipeline.unet, pipeline.text_encoder):
        part.to(device).train()  # transformers computes activations twice only in this mode
    weights = _trained_weights(pipeline)
    prompts = _prompts(pipeline, hyperparameters, [[*files[0], *held_out], *files[1:]], device, say)
    _save_memory_and_time(pipeline, hyperparameters, device, say)
    optimizer = make_optimizer(hyperparameters, weights, device, say)
    lr_scheduler = make_lr_scheduler(hyperparameters, optimizer)
    unet, optimizer = accelerator.prepare(pipeline.unet, optimizer)
    return Training(
        hyperparameters=hyperparameters,
        accelerator=accelerator,
        pipeline=pipeline,
        unet=torch.compile(unet) if hyperparameters.torch_compile else unet,
        noise_scheduler=DDPMScheduler.from_config(pipeline.scheduler.config),
        sources=sources,
        held_out=held,
        prompts=prompts,
        weights=weights,
        optimizer=optimizer,
        lr_scheduler=lr_scheduler,
        ema=_running_mean(hyperparameters, weights),
    )


def _sources(
    pipeline: StableDiffusionPipeline,
    hyperparameters: Hyperparameters,
    files: Sequence[Sequence[Path]],
    device: torch.device,
    say: Callable[[str], None],
) -> list[Source]:
    count = " + ".join(str(len(group)) for group in files)
    side = hyperparameters.resolution
    if not hyperparameters.cache_latents:
        say(f"latents: {count} images are encoded anew in each step, since cache_latents is off")
        return [Encoded(pipeline.vae.to(device), group, side) for group in files]
    say(f"latents: encoded once for {count} images, sampled anew in each step; kept in {CACHE}")
    return [encode_images(pipeline.vae, group, side, device) for group in files]


def _save_memory_and_time(
    pipeline: StableDiffusionPipeline,
    hyperparameters: Hyperparameters,
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    if hyperparameters.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.text_encoder.gradient_checkpointing_enable({"use_reentrant": False})
        say("gradient checkpointing: activations are computed twice to save memory")
    if device.type == "cuda":
        pipeline.unet.to(memory_format=torch.channels_last)  # the order that its convolutions want
        torch.backends.cuda.matmul.allow_tf32 = hyperparameters.allow_tf32


def _running_mean(
    hyperparameters: Hyperparameters, weights: dict[str, torch.nn.Parameter]
) -> EMAModel | None:
    if not hyperparameters.use_ema:
        return None
    return EMAModel(weights.values(), decay=hyperparameters.ema_decay, foreach=True)


def _trained_weights(pipeline: StableDiffusionPipeline) -> dict[str, torch.nn.Parameter]:
    """The weights that gradients go to, by name, always in the same order."""
    parts = (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder))
    return {
        f"{part_name}.{name}": weight
        for part_name, part in parts
        for name, weight in part.named_parameters()
        if weight.requires_grad
    }


def _prompts(
    pipeline: StableDiffusionPipeline,
    hyperparameters: Hyperparameters,
    files: Sequence[Sequence[Path]],
    device: torch.device,
    say: Callable[[str], None],
) -> Prompts:
    prompts = [hyperparameters.instance_prompt, hyperparameters.class_prompt or ""][: len(files)]
    captions = read_captions(hyperparameters.instance_data_dir)
    texts, of_image = prompts_of_images(files, prompts, captions)
    trained = hyperparameters.train_text_encoder
    if captioned := sum(file.name in captions for file in files[0]):
        say(f"captions: {captioned} of {len(files[0])} images have one of their own")
    say("text encoder: trained" if trained else "text encoder: frozen, so the prompts are encoded once")
    input_ids = tokenize(pipeline.tokenizer, texts, device)
    return Prompts(pipeline.text_encoder, input_ids, of_image, trained=trained)
