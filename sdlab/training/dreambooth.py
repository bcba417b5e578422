"""DreamBooth: every weight of the UNet is trained, and of the text encoder if asked for."""

from __future__ import annotations

from diffusers import StableDiffusionPipeline

from sdlab.config import Hyperparameters
from sdlab.experiment import Experiment
from sdlab.formats.conversion import save_pipeline


def prepare(pipeline: StableDiffusionPipeline, hyperparameters: Hyperparameters) -> None:
    """Marks the weights to train."""
    pipeline.unet.requires_grad_(True)
    pipeline.text_encoder.requires_grad_(hyperparameters.train_text_encoder)


def export(pipeline: StableDiffusionPipeline, experiment: Experiment) -> None:
    """Saves the trained pipeline as a diffusers folder, `model/`, whole or not at all."""
    save_pipeline(pipeline, experiment.model_folder)
