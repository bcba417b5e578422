"""Did it learn nothing, or too much? How far training moved the weights, and what the UNet predicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.lora import LoraLayer

from sdlab.config import LoRA
from sdlab.experiment import Experiment
from sdlab.models import fuse, load_pipeline
from sdlab.training.data import generator, tokenize
from sdlab.training.latents import on_device
from sdlab.verdict import held_out_losses, sentence

if TYPE_CHECKING:
    from sdlab.training.setup import Training

_TIMESTEPS = (100, 300, 500, 700, 900)


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


def diagnose(training: Training, experiment: Experiment) -> Diagnosis:
    """Compares a trained model with its base.

    Args:
        training: At its end; for DreamBooth its base is loaded once more.
        experiment: For its log, and the folder of other experiments, which may be the base.

    Returns:
        The changes, and a plain sentence.
    """
    chosen, tuned = training.hyperparameters, training.pipeline
    tuned.unet.eval()
    tuned.text_encoder.eval()
    after = _predictions(training, tuned)
    if isinstance(chosen, LoRA):
        moved = _grouped(_lora_changes(tuned))
        _set_adapters(tuned, active=False)
        before = _predictions(training, tuned)
        _set_adapters(tuned, active=True)
    else:
        base = fuse(load_pipeline(chosen.pretrained_model_name_or_path, root=experiment.root))
        moved = _grouped(_changes(base, tuned))
        before = _predictions(training, base)
    change = float(((after - before).norm(dim=1) / before.norm(dim=1)).mean())
    return Diagnosis(moved, change, sentence(chosen, moved, change, held_out_losses(experiment)))


@torch.no_grad()
def _predictions(training: Training, pipeline: StableDiffusionPipeline) -> torch.Tensor:
    """The UNet's predictions on the first image and one fixed noise: (timesteps, values)."""
    device = training.accelerator.device
    unet, text_encoder = pipeline.unet.to(device), pipeline.text_encoder.to(device)
    latents = training.sources[0].sample([0], generator(0, 0, "diagnosis"))
    latents = latents.expand(len(_TIMESTEPS), -1, -1, -1)
    noise = torch.randn(latents.shape[1:], generator=generator(0, 1, "diagnosis")).expand(latents.shape)
    timesteps = on_device(torch.tensor(_TIMESTEPS), device)
    noisy = training.noise_scheduler.add_noise(latents, on_device(noise.contiguous(), device), timesteps)
    with training.accelerator.autocast():
        ids = tokenize(pipeline.tokenizer, [training.hyperparameters.instance_prompt], device)
        embeddings = text_encoder(ids)[0]  # (1, 77, dim)
        rows = [
            unet(noisy[[index]], timesteps[[index]], embeddings).sample.float().flatten()
            for index in range(len(_TIMESTEPS))
        ]
    return torch.stack(rows)


def _changes(
    base: StableDiffusionPipeline, tuned: StableDiffusionPipeline
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Group, weight before, and weight after, for each weight that is trained."""
    for part in ("unet", "text_encoder"):
        before = dict(getattr(base, part).named_parameters())
        for name, weight in getattr(tuned, part).named_parameters():
            if weight.requires_grad:
                yield _group(part, name), before[name].detach().cpu(), weight.detach().cpu()


def _lora_changes(tuned: StableDiffusionPipeline) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """The same for the layers that have an adapter; with DoRA as in arXiv:2402.09353, equation 5."""
    for part in ("unet", "text_encoder"):
        for name, layer in getattr(tuned, part).named_modules():
            if isinstance(layer, LoraLayer):
                (adapter,) = layer.active_adapters
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


def _grouped(changes: Iterable[tuple[str, torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    moved: dict[str, float] = defaultdict(float)
    size: dict[str, float] = defaultdict(float)
    for group, before, after in changes:
        moved[group] += float((after.float() - before.float()).square().sum())
        size[group] += float(before.float().square().sum())
    return {group: (moved[group] / size[group]) ** 0.5 for group in sorted(moved)}


def _set_adapters(pipeline: StableDiffusionPipeline, *, active: bool) -> None:
    parts: list[Any] = [pipeline.unet, pipeline.text_encoder]
    for part in parts:
        if getattr(part, "peft_config", None):
            part.enable_adapters() if active else part.disable_adapters()
