"""Looking at trainings: held-out photos' loss, images with fixed seeds, and how far the weights moved."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from sdlab.config import Hyperparameters, LoRA
from sdlab.models import fuse
from sdlab.sampling import choose_sampling, sample, with_sampler, write_image
from sdlab.training.data import Batch, generator, on_device
from sdlab.training.loss import noise_losses
from sdlab.training.setup import Training, evaluation
from sdlab.verdict import held_out_losses, sentence

_TIMESTEPS = 8  # per held-out image, evenly spread over the noise schedule
_SEED = 0  # the same noise in every experiment, so that their validation losses can be compared
_DIAGNOSED = (100, 300, 500, 700, 900)  # timesteps


def split(files: Sequence[Path], chosen: Hyperparameters) -> tuple[list[Path], list[Path]]:
    """Splits the instance images into those to train on and those held out, the same in every experiment.

    Raises:
        ValueError: None would be left to train on.
    """
    number = chosen.num_held_out_images
    if number >= len(files):
        raise ValueError(
            f"num_held_out_images must leave images to train on, got {number} of {len(files)}. "
            "Take about one in ten, or 0."
        )
    held_out = torch.randperm(len(files), generator=generator(_SEED, 0, "held out"))[:number].tolist()
    return (
        [file for index, file in enumerate(files) if index not in held_out],
        [file for index, file in enumerate(files) if index in held_out],
    )


def steps_between(chosen: Hyperparameters, instance_images: int) -> int:
    """Gives the number of steps between two validations, from `validation_steps` or `validation_epochs`."""
    if chosen.validation_epochs is None:
        return chosen.validation_steps
    images_a_step = chosen.train_batch_size * chosen.gradient_accumulation_steps
    return chosen.validation_epochs * math.ceil(instance_images / images_a_step)


def validate(trainings: Sequence[Training]) -> list[dict[str, float]]:
    """Measures the held-out photos' loss and makes the validation images, as far as they are asked for.

    Returns:
        For each training `validation_loss`, or nothing without held-out images.
    """
    measured: list[dict[str, float]] = [{} for _ in trainings]
    if trainings and trainings[0].model.held_out is not None:
        measured = [{"validation_loss": loss} for loss in validation_losses(trainings)]
    for training in trainings:
        if training.hyperparameters.validation_prompt:
            with evaluation([training]):
                _make_images(training, training.hyperparameters.validation_prompt)
    return measured


def validation_losses(trainings: Sequence[Training]) -> list[float]:
    """Measures the loss of held-out photos on noise and timesteps that are always the same.

    The loss of a training step depends most of all on its random timestep, and goes down too when photos are
    memorised; this one does neither. It is the mean (prediction - noise)², unweighted.
    """
    model, held_out = trainings[0].model, trainings[0].model.held_out
    assert held_out is not None
    number = model.noise_scheduler.config.num_train_timesteps
    timesteps = torch.tensor([int((index + 0.5) * number / _TIMESTEPS) for index in range(_TIMESTEPS)])
    size = trainings[0].hyperparameters.train_batch_size * len(model.sources)  # as in training, for memory
    losses = []
    with evaluation(trainings):
        for image, latents in enumerate(held_out.mean):
            noise = torch.randn((_TIMESTEPS, *latents.shape), generator=generator(_SEED, image, "validation"))
            place = image + len(model.sources[0])  # behind the images that are trained on
            for some in torch.arange(_TIMESTEPS).split(size):
                batch = Batch(
                    latents.expand(len(some), -1, -1, -1),
                    on_device(noise[some], model.device),
                    on_device(timesteps[some], model.device),
                    [[place] * len(some)],
                )
                predicted = model.predict(trainings, [batch] * len(trainings))
                each = [noise_losses(one, model.noise_scheduler, batch) for one in predicted]
                losses.append(torch.stack(each))  # (trainings, some)
    return torch.cat(losses, dim=1).mean(dim=1).tolist()


def _make_images(training: Training, prompt: str) -> None:
    chosen, model = training.hyperparameters, training.model
    sampling = choose_sampling(model.base, resolution=chosen.resolution)
    pipeline = with_sampler(model.pipeline, sampling.sampler)
    was_on = pipeline.vae.device
    pipeline.vae.to(model.device)
    for number in range(1, chosen.num_validation_images + 1):  # one by one, to need little memory
        seed = chosen.seed + number - 1
        with model.accelerator.autocast():
            (image,) = sample(pipeline, [prompt], [seed], sampling)
        record = {"step": training.done, "prompt": prompt, "seed": seed, **vars(sampling)}
        name = f"step_{training.done:06d}_img{number}.png"
        write_image(training.experiment.validation_folder / name, image, record)
    pipeline.vae.to(was_on)


def fixed_predictions(training: Training) -> torch.Tensor:
    """Gives the UNet's predictions on the first image and one fixed noise, (timesteps, values)."""
    model, number = training.model, len(_DIAGNOSED)
    latents = model.sources[0].sample([0], generator(0, 0, "diagnosis"))
    noise = torch.randn(latents.shape, generator=generator(0, 1, "diagnosis"))
    batch = Batch(
        latents.expand(number, -1, -1, -1),
        on_device(noise, model.device).expand(number, -1, -1, -1),
        on_device(torch.tensor(_DIAGNOSED), model.device),
        [[0] * number],
    )
    with evaluation([training]):
        return model.predict([training], [batch])[0].float().flatten(1)


def diagnose(training: Training, before: torch.Tensor) -> dict[str, Any]:
    """Compares a trained model with its base, whose `fixed_predictions` were `before`.

    Returns:
        `weight_change`: module group to ‖W - W_base‖ / ‖W_base‖ over the weights that are trained;
        `prediction_change`: ‖ε - ε_base‖ / ‖ε_base‖ on one fixed noise, averaged over timesteps;
        `diagnosis`: what follows, in a sentence.
    """
    moved: dict[str, float] = defaultdict(float)
    size: dict[str, float] = defaultdict(float)
    after = fixed_predictions(training)
    with evaluation([training]):
        for group, old, new in _changes(training):
            moved[group] += float((new.float() - old.float()).square().sum())
            size[group] += float(old.float().square().sum())
    moved = {group: (moved[group] / size[group]) ** 0.5 for group in sorted(moved)}
    change = float(((after - before).norm(dim=1) / before.norm(dim=1)).mean())
    found = sentence(training.hyperparameters, moved, change, held_out_losses(training.experiment))
    return {"weight_change": moved, "prediction_change": change, "diagnosis": found}


def _changes(training: Training) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Gives the group, the weight before and the weight after, of all that are trained."""
    pipeline = training.model.pipeline
    if not isinstance(training.hyperparameters, LoRA):
        base = fuse(training.model.base.load())
        for name, weight in training.weights.items():
            part, _, inner = name.partition(".")
            yield _group(name), getattr(base, part).get_parameter(inner), weight.detach().cpu()
        return
    for part in ("unet", "text_encoder"):
        for name, layer in getattr(pipeline, part).named_modules():
            if isinstance(layer, LoraLayer):
                before = layer.get_base_layer().weight.detach().float()
                after = before + layer.get_delta_weight(training.adapter).detach().float()
                if training.adapter in layer.lora_magnitude_vector:  # DoRA: arXiv:2402.09353, equation 5
                    length = after.flatten(1).norm(dim=1).view(-1, *[1] * (after.dim() - 1))
                    magnitude = layer.lora_magnitude_vector[training.adapter].weight.view(length.shape)
                    after = magnitude * after / length
                yield _group(f"{part}.{name}"), before, after


def _group(name: str) -> str:
    if name.startswith("text_encoder."):
        return "text encoder"
    if ".attn1" in name or ".attn2" in name:
        return "UNet attention"
    return "UNet feed-forward" if ".ff." in name else "UNet convolutions"
