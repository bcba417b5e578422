"""Looking at trainings while they run: the loss of held-out photos, and images with fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from sdlab.config import Hyperparameters
from sdlab.sampling import choose_sampling, sample, with_sampler, write_image
from sdlab.training.data import generator
from sdlab.training.latents import on_device
from sdlab.training.loss import noise_losses
from sdlab.training.setup import Training, evaluation

_TIMESTEPS = 8  # per image, evenly spread over the noise schedule
_SEED = 0  # the same noise in every experiment, so that their validation losses can be compared


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
        with evaluation(trainings):
            measured = [{"validation_loss": loss} for loss in validation_losses(trainings)]
    for training in trainings:
        if training.hyperparameters.validation_prompt:
            with training.evaluation():
                _make_images(training)
    return measured


@torch.no_grad()
def validation_losses(trainings: Sequence[Training]) -> list[float]:
    """Measures the loss of held-out photos on noise and timesteps that are always the same.

    The loss of a training step depends most of all on its random timestep, and goes down too when photos are
    memorised; this one does neither. It is the mean (prediction - noise)², unweighted.
    """
    model, chosen = trainings[0].model, trainings[0].hyperparameters
    schedule, held_out = model.noise_scheduler, model.held_out
    assert held_out is not None
    number = schedule.config.num_train_timesteps
    timesteps = torch.tensor([int((index + 0.5) * number / _TIMESTEPS) for index in range(_TIMESTEPS)])
    size = chosen.train_batch_size * len(model.sources)  # no larger than a batch of the training
    losses = []
    for image in range(len(held_out)):
        random = generator(_SEED, image, "validation")
        noise = torch.randn((_TIMESTEPS, *held_out.mean.shape[1:]), generator=random)
        place = image + len(model.sources[0])  # behind the images that are trained on
        for some in torch.arange(_TIMESTEPS).split(size):
            images = [[place] * len(some), *[[] for _ in model.sources[1:]]]
            latents = held_out.mean[[image] * len(some) * len(trainings)]
            noises = on_device(noise[some].repeat(len(trainings), 1, 1, 1), latents.device)
            times = on_device(timesteps[some].repeat(len(trainings)), latents.device)
            with model.accelerator.autocast():
                embeddings = model.prompts.embeddings([images] * len(trainings))
                noisy = schedule.add_noise(latents, noises, times)
                prediction = model.pipeline.unet(noisy, times, embeddings, return_dict=False)[0]
            losses.append(noise_losses(prediction, schedule, latents, noises, times).view(len(trainings), -1))
    return torch.cat(losses, dim=1).mean(dim=1).tolist()


@torch.no_grad()
def _make_images(training: Training) -> None:
    chosen, model, experiment = training.hyperparameters, training.model, training.experiment
    sampling = choose_sampling(model.base, resolution=chosen.resolution)
    pipeline = with_sampler(model.pipeline, sampling.sampler)
    was_on = pipeline.vae.device
    pipeline.vae.to(model.device)
    for number in range(1, chosen.num_validation_images + 1):  # one by one, to need little memory
        seed = chosen.seed + number - 1
        with model.accelerator.autocast():
            (image,) = sample(pipeline, [chosen.validation_prompt or ""], [seed], sampling)
        record = {"step": training.done, "prompt": chosen.validation_prompt, "seed": seed, **vars(sampling)}
        path = experiment.validation_folder / f"step_{training.done:06d}_img{number}.png"
        write_image(path, image, record)
    pipeline.vae.to(was_on)
