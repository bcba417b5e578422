"""DreamBooth: every weight of the UNet is trained, and of the text encoder if asked for."""

from __future__ import annotations

from diffusers import StableDiffusionPipeline

from sdlab.config import Hyperparameters
from sdlab.experiment import Experiment
from sdlab.files import write_folder
from sdlab.formats.conversion import pipeline_bytes, save_pipeline


def prepare(pipeline: StableDiffusionPipeline, hyperparameters: Hyperparameters) -> None:
    """Marks the weights to train."""
    pipeline.unet.requires_grad_(True)
    pipeline.text_encoder.requires_grad_(hyperparameters.train_text_encoder)


def export(pipeline: StableDiffusionPipeline, experiment: Experiment) -> None:
    """Saves the trained pipeline as a diffusers folder, `model/`, whole or not at all."""
    with write_folder(experiment.model_folder, needed=pipeline_bytes(pipeline)) as folder:
        save_pipeline(pipeline, folder)
