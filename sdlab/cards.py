"""What an exported model says of itself: a card for people, header entries for programs that list models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mode
from typing import TYPE_CHECKING, Any, Literal

from sdlab import __version__
from sdlab.config import PLACES
from sdlab.experiment import Experiment
from sdlab.formats.conversion import SD15
from sdlab.templates import render

if TYPE_CHECKING:
    import torch

Form = Literal["lora", "kohya", "folder", "single-file"]

LICENSES = {"mini": "MIT", SD15: "CreativeML OpenRAIL-M"}
"""Of the base models that are known here, by `public_name`; what is trained from one is bound by it, too."""
_LORAS = ("lora", "kohya")
_HUB_LICENSES = {"MIT": "mit", "CreativeML OpenRAIL-M": "creativeml-openrail-m", None: "unknown"}
_FACTS = {
    "steps": "steps",
    "seconds": "seconds",
    "final_loss": "mean loss of the last rows of the log",
    "trainable_parameters": "trained weights",
    "trainable_share": "their share of all weights",
    "instance_images": "fingerprint of the instance images",
    "captions": "fingerprint of their captions",
    "class_images": "fingerprint of the class images",
    "base_fingerprint": "fingerprint of the base model",
}
_KOHYAS_TOO = ("learning_rate", "lr_scheduler", "max_train_steps", "gradient_accumulation_steps", "seed")
_MACHINE = ("torch", "diffusers", "transformers", "peft", "accelerate", "device", "optimizer")


def model_card(
    experiment: Experiment, *, file: str | None = None, form: Form | None = None, scale: float = 1.0
) -> str:
    """Writes a model card from an experiment's record; it holds no path of this machine.

    What the record lacks is left out. `file` is the one that the card lies beside, `form` what lies there,
    `scale` the strength of a LoRA that was merged into the model.
    """
    record = experiment.record
    chosen: dict[str, Any] = record.get("hyperparameters") or {}
    environment: dict[str, Any] = record.get("environment") or {}
    method = str(record.get("method", "dreambooth"))
    form = form or ("lora" if method == "lora" else "folder")
    base = public_name(str(record.get("base") or chosen.get("pretrained_model_name_or_path") or "unknown"))
    start = str(chosen.get("pretrained_model_name_or_path") or base)
    inside = Path(start).parent.name == experiment.root.name  # an experiment, as `experiments/exp1`
    start = public_name(Path(start).name if inside else start)
    prompt = " ".join(str(chosen.get("instance_prompt") or "").split())
    facts = {words: record.get(name) for name, words in _FACTS.items()}
    return render(
        "card.md",
        front_matter=_front_matter(base, method, form, prompt),
        name=experiment.name,
        method=method,
        version=__version__,
        base=base,
        start=start,
        instance_prompt=prompt,
        form=form,
        is_lora=form in _LORAS,
        file=file or experiment.lora_file.name,
        scale=f"{scale:g}",
        settings=_rows({name: chosen[name] for name in chosen if name not in PLACES | {"method"}}),
        facts=_rows(facts | {name: environment.get(name) for name in _MACHINE}),
        license=LICENSES.get(base),
        quoted=partial(json.dumps, ensure_ascii=False),
    )


def _front_matter(base: str, method: str, form: Form, prompt: str) -> str:
    from huggingface_hub import ModelCardData

    return ModelCardData(
        base_model=base if "/" in base else None,  # the hub links it, so it must be one of its ids
        base_model_relation=None if "/" not in base else "adapter" if form in _LORAS else "finetune",
        instance_prompt=prompt or None,
        library_name="diffusers",
        license=_HUB_LICENSES[LICENSES.get(base)],
        pipeline_tag="text-to-image",
        tags=["stable-diffusion", "text-to-image", "diffusers", "dreambooth", *["lora"] * (method == "lora")],
    ).to_yaml()


def _rows(values: dict[str, Any]) -> list[tuple[str, Any]]:
    rows = [(name, value) for name, value in values.items() if value is not None]
    return [(name, f"{value:g}" if isinstance(value, float) else value) for name, value in rows]


def public_name(base: str) -> str:
    """A base model's name without its folders: `mini`, a hub id, or the last part of a path."""
    if base == "sd15":
        return SD15
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).parent.exists()
    return base if is_hub_id else re.split(r"[\\/]", base.rstrip("\\/"))[-1]


def modelspec(title: str, base: str, *, lora: bool, experiment: Experiment | None) -> dict[str, str]:
    """What a safetensors file's header says of a model; `mini` has an architecture of its own.

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
    """What kohya's sd-scripts write into a LoRA's header, which A1111, Forge and Civitai show.

    Rank and alpha are those that most modules have.

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
        "batch_size_per_device": chosen.train_batch_size,
        **{name: getattr(chosen, name) for name in _KOHYAS_TOO},
        "tag_frequency": json.dumps({experiment.name: {chosen.instance_prompt: 1}}),  # A1111 offers its words
    }
    return {f"ss_{name}": str(value) for name, value in entries.items()}
