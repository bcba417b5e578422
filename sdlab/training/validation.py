"""Looking at a training while it runs: the loss of held-out photos, and images with fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sdlab.config import Hyperparameters
from sdlab.experiment import Experiment
from sdlab.images import choose_sampling, sample, with_sampler, write_image
from sdlab.models import resolve
from sdlab.training.data import generator
from sdlab.training.latents import on_device
from sdlab.training.loss import noise_losses

if TYPE_CHECKING:
    from sdlab.training.setup import Training

_TIMESTEPS = 8  # per image, evenly spread over the noise schedule
_SEED = 0  # the same noise in every experiment, so that their validation losses can be compared


def split(files: Sequence[Path], hyperparameters: Hyperparameters) -> tuple[list[Path], list[Path]]:
    """Chooses the instance images that aren't trained on: the same ones in every experiment.

    Args:
        files: All instance images.
        hyperparameters: For how many.

    Returns:
        The images to train on, and those held out.

    Raises:
        ValueError: None would be left to train on.
    """
    number = hyperparameters.num_held_out_images
    if number >= len(files):
        raise ValueError(
            f"num_held_out_images must leave images to train on, got {number} of {len(files)}. "
            "Take about one in ten, or 0."
        )
    chosen = torch.randperm(len(files), generator=generator(_SEED, 0, "held out"))[:number].tolist()
    return (
        [file for index, file in enumerate(files) if index not in chosen],
        [file for index, file in enumerate(files) if index in chosen],
    )


def steps_between(hyperparameters: Hyperparameters, instance_images: int) -> int:
    """Gives the number of steps between two validations.

    Args:
        hyperparameters: For `validation_steps` or `validation_epochs`.
        instance_images: How many are trained on.

    Returns:
        At least 1.
    """
    if hyperparameters.validation_epochs is None:
        return hyperparameters.validation_steps
    images_a_step = hyperparameters.train_batch_size * hyperparameters.gradient_accumulation_steps
    return hyperparameters.validation_epochs * math.ceil(instance_images / images_a_step)


def validate(training: Training, experiment: Experiment, done: int) -> dict[str, float]:
    """Measures the held-out photos' loss and makes the validation images, as far as they are asked for.

    Args:
        training: After step `done`.
        experiment: Gets the images: `validation/step_<done>_img<n>.png`.
        done: Steps done.

    Returns:
        `validation_loss`; empty without held-out images.
    """
    measured: dict[str, float] = {}
    with training.evaluation():
        if training.held_out is not None:
            measured["validation_loss"] = validation_loss(training)
        if training.hyperparameters.validation_prompt:
            _make_images(training, experiment, done)
    return measured


@torch.no_grad()
def validation_loss(training: Training) -> float:
    """Measures the loss of held-out photos on noise and timesteps that are always the same.

    The loss of a training step depends most of all on its random timestep, and goes down too when photos are
    learned by heart; this one does neither.

    Args:
        training: Its held-out photos.

    Returns:
        Mean (prediction - noise)² over photos and timesteps, unweighted.
    """
    schedule, held_out = training.noise_scheduler, training.held_out
    assert held_out is not None
    number = schedule.config.num_train_timesteps
    timesteps = torch.tensor([int((index + 0.5) * number / _TIMESTEPS) for index in range(_TIMESTEPS)])
    losses = []
    for image, chosen in _batches(training, len(held_out)):
        random = generator(_SEED, image, "validation")
        noise = torch.randn((_TIMESTEPS, *held_out.mean.shape[1:]), generator=random)[chosen]
        latents = held_out.mean[[image] * len(chosen)]
        noise, times = on_device(noise, latents.device), on_device(timesteps[chosen], latents.device)
        place = image + len(training.sources[0])  # behind the images that are trained on
        with training.accelerator.autocast():
            images = [[place] * len(chosen), *[[] for _ in training.sources[1:]]]
            embeddings = training.prompts.embeddings(images)
            noisy = schedule.add_noise(latents, noise, times)
            prediction = training.pipeline.unet(noisy, times, embeddings, return_dict=False)[0]
        losses.append(noise_losses(prediction, schedule, latents, noise, times))
    return float(torch.cat(losses).mean())


def _batches(training: Training, images: int) -> Iterator[tuple[int, list[int]]]:
    """Image by image, timesteps in batches that are no larger than those of the training."""
    size = training.hyperparameters.train_batch_size * len(training.sources)
    for image in range(images):
        for start in range(0, _TIMESTEPS, size):
            yield image, list(range(start, min(start + size, _TIMESTEPS)))


@torch.no_grad()
def _make_images(training: Training, experiment: Experiment, done: int) -> None:
    chosen = training.hyperparameters
    base = chosen.pretrained_model_name_or_path
    sampling = choose_sampling(resolve(base, experiment.root), resolution=chosen.resolution)
    pipeline = with_sampler(training.pipeline, sampling.sampler)
    was_on = pipeline.vae.device
    pipeline.vae.to(training.accelerator.device)
    for number in range(1, chosen.num_validation_images + 1):  # one by one, to need little memory
        seed = chosen.seed + number - 1
        with training.accelerator.autocast():
            (image,) = sample(pipeline, [chosen.validation_prompt or ""], [seed], sampling)
        record = {"step": done, "prompt": chosen.validation_prompt, "seed": seed, **vars(sampling)}
        path = experiment.validation_folder / f"step_{done:06d}_img{number}.png"
        write_image(path, image, record)
    pipeline.vae.to(was_on)
