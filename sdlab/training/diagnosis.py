"""Did it learn nothing, or too much? How far training moved the weights, and what the UNet predicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.lora import LoraLayer

from sdlab.config import LoRA
from sdlab.models import fuse
from sdlab.training.data import generator, tokenize
from sdlab.training.latents import on_device
from sdlab.training.setup import Training
from sdlab.verdict import held_out_losses, sentence

_TIMESTEPS = (100, 300, 500, 700, 900)
_Change = tuple[str, torch.Tensor, torch.Tensor]  # group, weight before, weight after


@dataclass(frozen=True)
class Diagnosis:
    """How far an experiment is from its base model.

    Args:
        weight_change: Module group to ‖W - W_base‖ / ‖W_base‖ over the weights that are trained.
        prediction_change: ‖ε - ε_base‖ / ‖ε_base‖ on one fixed noise, averaged over five timesteps.
        diagnosis: What follows, in a sentence.
    """

    weight_change: dict[str, float]
    prediction_change: float
    diagnosis: str


def diagnose(training: Training, before: torch.Tensor) -> Diagnosis:
    """Compares a trained model with its base, whose `predictions` were `before`."""
    chosen, pipeline = training.hyperparameters, training.model.pipeline
    with training.evaluation():
        after = predictions(training)
    if isinstance(chosen, LoRA):
        moved = _grouped(_lora_changes(pipeline, training.adapter))
    else:
        moved = _grouped(_changes(fuse(training.model.base.load()), pipeline))
    change = float(((after - before).norm(dim=1) / before.norm(dim=1)).mean())
    held_out = held_out_losses(training.experiment)
    return Diagnosis(moved, change, sentence(chosen, moved, change, held_out))


@torch.no_grad()
def predictions(training: Training) -> torch.Tensor:
    """Gives the UNet's predictions on the first image and one fixed noise, (timesteps, values)."""
    model, pipeline = training.model, training.model.pipeline
    latents = model.sources[0].sample([0], generator(0, 0, "diagnosis"))
    noise = torch.randn(latents.shape, generator=generator(0, 1, "diagnosis"))
    timesteps = on_device(torch.tensor(_TIMESTEPS), model.device)
    noisy = model.noise_scheduler.add_noise(
        latents.expand(len(_TIMESTEPS), -1, -1, -1),
        on_device(noise.expand(len(_TIMESTEPS), -1, -1, -1).contiguous(), model.device),
        timesteps,
    )
    with model.accelerator.autocast():
        ids = tokenize(pipeline.tokenizer, [training.hyperparameters.instance_prompt], model.device)
        embeddings = pipeline.text_encoder(ids)[0]  # (1, 77, dim)
        rows = [
            pipeline.unet(noisy[[index]], timesteps[[index]], embeddings).sample.float().flatten()
            for index in range(len(_TIMESTEPS))
        ]
    return torch.stack(rows)


def _changes(base: StableDiffusionPipeline, tuned: StableDiffusionPipeline) -> Iterator[_Change]:
    for part in ("unet", "text_encoder"):
        before = dict(getattr(base, part).named_parameters())
        for name, weight in getattr(tuned, part).named_parameters():
            if weight.requires_grad:
                yield _group(part, name), before[name].detach().cpu(), weight.detach().cpu()


def _lora_changes(tuned: StableDiffusionPipeline, adapter: str) -> Iterator[_Change]:
    """Those of the layers that have an adapter; with DoRA as in arXiv:2402.09353, equation 5."""
    for part in ("unet", "text_encoder"):
        for name, layer in getattr(tuned, part).named_modules():
            if isinstance(layer, LoraLayer):
                before = layer.get_base_layer().weight.detach().float()
                after = before + layer.get_delta_weight(adapter).detach().float()
                if adapter in layer.lora_magnitude_vector:
                    length = after.flatten(1).norm(dim=1).view(-1, *[1] * (after.dim() - 1))
                    magnitude = layer.lora_magnitude_vector[adapter].weight.detach().view(length.shape)
                    after = magnitude * after / length
                yield _group(part, name), before, after


def _group(part: str, name: str) -> str:
    if part == "text_encoder":
        return "text encoder"
    if ".attn1" in name or ".attn2" in name:
        return "UNet attention"
    return "UNet feed-forward" if ".ff." in name else "UNet convolutions"


def _grouped(changes: Iterable[_Change]) -> dict[str, float]:
    moved: dict[str, float] = defaultdict(float)
    size: dict[str, float] = defaultdict(float)
    for group, before, after in changes:
        moved[group] += float((after.float() - before.float()).square().sum())
        size[group] += float(before.float().square().sum())
    return {group: (moved[group] / size[group]) ** 0.5 for group in sorted(moved)}
