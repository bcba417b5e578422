"""What an exported file says of itself to the programs that list models: modelspec's and kohya's entries."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import mode

import torch

from sdlab.experiment import Experiment
from sdlab.models import SD15

LICENSES = {"mini": "MIT", SD15: "CreativeML OpenRAIL-M"}
"""Of the base models that are known here, by `public_name`; what is trained from one is bound by it, too."""


def public_name(base: str) -> str:
    """Gives a base model's name without the folders that it lies in.

    Args:
        base: `mini`, `sd15`, a hub id, a folder or a file.

    Returns:
        `mini`, a hub id, or the last part of a path.
    """
    if base == "sd15":
        return SD15
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).parent.exists()
    return base if is_hub_id else re.split(r"[\\/]", base.rstrip("\\/"))[-1]


def modelspec(title: str, base: str, *, lora: bool, experiment: Experiment | None) -> dict[str, str]:
    """Writes the entries of Stability AI's ModelSpec.

    Args:
        title: Of the model.
        base: What it was trained from in the first place.
        lora: A LoRA, else a whole model.
        experiment: What made it; None for a base model.

    Returns:
        Entries for a safetensors file's header. `mini` has an architecture of its own, since no other
        program knows its size.

    Source:
        Stability-AI/ModelSpec 1.0.1, as kohya-ss/sd-scripts writes it.
    """
    architecture = "sdlab-mini" if base == "mini" else "stable-diffusion-v1"
    entries = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture}/lora" if lora else architecture,
        "implementation": "diffusers" if lora else "https://github.com/CompVis/stable-diffusion",
        "title": title,
    }
    if license := LICENSES.get(public_name(base)):
        entries["license"] = license
    if experiment:
        chosen = experiment.hyperparameters
        ended = (experiment.path / "experiment.json").stat().st_mtime
        entries["date"] = datetime.fromtimestamp(int(ended), UTC).isoformat()
        entries["resolution"] = f"{chosen.resolution}x{chosen.resolution}"
        entries["trigger_phrase"] = chosen.instance_prompt
    return {f"modelspec.{name}": value for name, value in entries.items()}


def kohya_entries(experiment: Experiment, weights: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Writes the entries of kohya's sd-scripts that A1111, Forge and Civitai show.

    Args:
        experiment: A LoRA.
        weights: Under kohya's names.

    Returns:
        Entries for a safetensors file's header; rank and alpha are those that most modules have.

    Source:
        kohya-ss/sd-scripts `train_network.py`.
    """
    chosen = experiment.hyperparameters
    base = experiment.record.get("base", "")
    entries = {
        "output_name": experiment.name,
        "base_model_version": "sdlab_mini" if base == "mini" else "sd_v1",
        "sd_model_name": public_name(base),
        "v2": False,
        "network_module": "networks.lora",
        "network_dim": mode(len(weight) for name, weight in weights.items() if "lora_down" in name),
        "network_alpha": mode(float(weight) for name, weight in weights.items() if name.endswith(".alpha")),
        "resolution": f"({chosen.resolution}, {chosen.resolution})",
        "learning_rate": chosen.learning_rate,
        "lr_scheduler": chosen.lr_scheduler,
        "max_train_steps": chosen.max_train_steps,
        "batch_size_per_device": chosen.train_batch_size,
        "gradient_accumulation_steps": chosen.gradient_accumulation_steps,
        "seed": chosen.seed,
        "tag_frequency": json.dumps({experiment.name: {chosen.instance_prompt: 1}}),  # A1111 offers its words
    }
    return {f"ss_{name}": str(value) for name, value in entries.items()}
