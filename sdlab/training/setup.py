"""Everything a training step needs, made ready: parts, data, optimizer; and why each was chosen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler

from sdlab import environment
from sdlab.basemodel import fuse, load_pipeline
from sdlab.experiment import Experiment, Hyperparameters
from sdlab.photos import read_captions
from sdlab.training import dreambooth, lora
from sdlab.training.data import Latents, Prompts, encode_images, prompts_of_images, tokenize

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
        prompts: Their embeddings.
        weights: What is trained, by name.
        optimizer: Over these weights.
        lr_scheduler: Of the optimizer's learning rate.
    """

    hyperparameters: Hyperparameters
    accelerator: Accelerator
    pipeline: StableDiffusionPipeline
    unet: torch.nn.Module
    noise_scheduler: DDPMScheduler
    sources: list[Latents]
    prompts: Prompts
    weights: dict[str, torch.nn.Parameter]
    optimizer: Any
    lr_scheduler: Any

    def export(self, experiment: Experiment) -> None:
        """Saves what was trained, in diffusers' format.

        Args:
            experiment: Whose folder it goes to.
        """
        RECIPES[experiment.record["method"]].export(self.pipeline, experiment)


def set_up(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    files: Sequence[Sequence[Path]],
    say: Callable[[str], None],
) -> Training:
    """Loads the base model and the images and gets a training ready for its first step.

    Args:
        experiment: For the folder of other experiments, which may be the base.
        hyperparameters: Of the experiment.
        files: The instance images, and with prior preservation the class images.
        say: Told what is chosen, and why.

    Returns:
        The training, at step 0.

    Raises:
        ValueError: An image can't be read.
    """
    AcceleratorState._reset_state()  # or a second training in this process couldn't have another precision
    accelerator = Accelerator(mixed_precision=hyperparameters.mixed_precision)
    device = accelerator.device
    say(f"device: {device.type}, because {environment.choose_device()[1]}")
    say(f"mixed precision: {accelerator.mixed_precision}, as asked for")
    pipeline = fuse(load_pipeline(hyperparameters.pretrained_model_name_or_path, root=experiment.root))
    sources = [encode_images(pipeline.vae, group, hyperparameters.resolution, device) for group in files]
    count = " + ".join(str(len(group)) for group in files)
    say(f"latents: encoded once for {count} images, sampled anew in each step")
    RECIPES[hyperparameters.method].prepare(pipeline, hyperparameters, _DTYPES[accelerator.mixed_precision])
    for part in (pipeline.unet, pipeline.text_encoder):
        part.to(device).train()  # transformers computes activations twice only in this mode
    weights = _trained_weights(pipeline)
    prompts = _prompts(pipeline, hyperparameters, files, device, say)
    if hyperparameters.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.text_encoder.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = _optimizer(hyperparameters, list(weights.values()), device, say)
    lr_scheduler = get_scheduler(
        hyperparameters.lr_scheduler,
        optimizer,
        num_warmup_steps=hyperparameters.lr_warmup_steps,
        num_training_steps=hyperparameters.max_train_steps,
    )
    unet, optimizer = accelerator.prepare(pipeline.unet, optimizer)
    return Training(
        hyperparameters,
        accelerator,
        pipeline,
        unet,
        DDPMScheduler.from_config(pipeline.scheduler.config),
        sources,
        prompts,
        weights,
        optimizer,
        lr_scheduler,
    )


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


def _optimizer(
    hyperparameters: Hyperparameters,
    weights: list[torch.nn.Parameter],
    device: torch.device,
    say: Callable[[str], None],
) -> torch.optim.Optimizer:
    options: dict[str, Any] = {
        "lr": hyperparameters.learning_rate,
        "betas": (hyperparameters.adam_beta1, hyperparameters.adam_beta2),
        "weight_decay": hyperparameters.adam_weight_decay,
        "eps": hyperparameters.adam_epsilon,
    }
    if hyperparameters.use_8bit_adam:
        try:
            from bitsandbytes.optim import AdamW8bit

            optimizer: torch.optim.Optimizer = AdamW8bit(weights, **options)
        except Exception as error:  # its binary parts fail in many ways: not installed, wrong CUDA, no GPU
            message = (
                f"bitsandbytes can't be used ({error}), so AdamW runs with 32-bit states instead of 8-bit."
            )
            warnings.warn(f"{message} It needs more memory and is otherwise the same.", stacklevel=2)
        else:
            say("optimizer: AdamW of bitsandbytes with 8-bit states")
            return optimizer
    say("optimizer: torch's AdamW")
    return torch.optim.AdamW(weights, **options, fused=device.type in ("cpu", "cuda"))
