"""Memory as it is reckoned on paper, beside the bytes of a real training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sdlab.config import DreamBooth, Hyperparameters, LoRA
from sdlab.experiment import Experiment
from sdlab.profiles import PROFILES, hyperparameters
from sdlab.sampling import image_files
from sdlab.training.loop import train_step
from sdlab.training.reckoning import LiveBytes, configurations, reckon
from sdlab.training.setup import Training, set_up

GB = 1e9


def ready(chosen: Hyperparameters) -> Training:
    images = image_files(chosen.instance_data_dir)
    sources = [images, images] if chosen.with_prior_preservation else [images]
    return set_up(Experiment("counted"), chosen, sources, lambda text: None)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("dreambooth", {"train_text_encoder": True}),
        ("dreambooth", {"gradient_checkpointing": True, "gradient_accumulation_steps": 2}),
        ("lora", {"train_text_encoder": True, "rank": 32}),
    ],
    ids=["dreambooth", "checkpointing", "lora"],
)
def test_a_step_takes_what_was_reckoned(
    method: str, changes: dict[str, Any], short: Callable[..., Any], workplace: Any
) -> None:
    training = ready(short(method, resolution=64, **changes))
    train_step([training])  # makes the optimizer's states
    with LiveBytes() as live:
        train_step([training])
    pipeline = training.model.pipeline
    reckoned = reckon(configurations(pipeline), training.hyperparameters)
    parts = (pipeline.unet, pipeline.text_encoder)
    states = (value for state in training.optimizer.state.values() for value in state.values())
    assert reckoned.weights == sum(weight.nbytes for part in parts for weight in part.parameters())
    assert reckoned.states == pytest.approx(sum(value.nbytes for value in states), rel=0.1)
    assert reckoned.step - reckoned.weights - reckoned.states == pytest.approx(live.peak, rel=0.1)


def test_the_autoencoder_takes_what_was_reckoned(short: Callable[..., Any], workplace: Any) -> None:
    import torch

    training = ready(short("lora"))
    vae, side = training.model.pipeline.vae, training.hyperparameters.resolution
    reckoned = reckon(configurations(training.model.pipeline), training.hyperparameters)
    weights = sum(weight.nbytes for weight in vae.parameters())
    with LiveBytes() as live, torch.no_grad():
        vae.encode(torch.zeros(1, 3, side, side))
    assert reckoned.encoding - weights == pytest.approx(live.peak, rel=0.1)


def of_profile(name: str, method: str, **changes: Any) -> Hyperparameters:
    return replace(hyperparameters(method, "sd15", profile=name), **changes)


@pytest.mark.parametrize(
    ("name", "method", "card_gb"),
    [
        ("sd15-8gb", "lora", 8.5),
        ("sd15-8gb", "dreambooth", 12.6),  # an RTX 3060
        ("sd15-16gb", "dreambooth", 15.8),  # a T4
        ("sd15", "dreambooth", 25.7),
    ],
)
def test_every_profile_fits_its_card_with_room(name: str, method: str, card_gb: float) -> None:
    precision = {"mixed_precision": "bf16"} if PROFILES[name].mixed_precision == "no" else {}
    reckoned = reckon(configurations(), of_profile(name, method, **precision))
    # 1 GB for CUDA and its libraries, and a tenth of the card for what the allocator can't use
    assert reckoned.peak / GB + 1 < 0.9 * card_gb


def test_what_saves_memory_saves_it() -> None:
    plain = hyperparameters("dreambooth", "mini")
    assert isinstance(plain, DreamBooth)
    configs = configurations()
    whole = reckon(configs, replace(plain, resolution=512, train_batch_size=1))
    eight_bit = reckon(configs, replace(plain, resolution=512, train_batch_size=1, use_8bit_adam=True))
    assert whole.weights == eight_bit.weights == 4 * 982_581_444  # docs/speed.md: counted in a training
    assert whole.states - eight_bit.states == pytest.approx(6 * 982_581_444, rel=0.01)
    lora = reckon(configs, LoRA())
    assert lora.gradients == 4 * 797_184  # of finished homeworks
    assert reckon(configs, LoRA(gradient_checkpointing=True)).activations < lora.activations / 3
