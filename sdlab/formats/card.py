"""The model card: what a trained model is, how it was made, how to load it, what it may be used for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from sdlab import __version__
from sdlab.config import PLACES
from sdlab.experiment import Experiment
from sdlab.formats.metadata import LICENSES, public_name
from sdlab.templates import render

Form = Literal["lora", "kohya", "folder", "single-file"]

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
_MACHINE = ("torch", "diffusers", "transformers", "peft", "accelerate", "device", "optimizer")


def model_card(
    experiment: Experiment, *, file: str | None = None, form: Form | None = None, scale: float = 1.0
) -> str:
    """Writes a model card from an experiment's record; what the record lacks is left out.

    Args:
        experiment: Any, finished or not.
        file: Name of the file that the card lies beside; None takes the experiment's own.
        form: What lies there; None takes `lora` or `folder` by the experiment's method.
        scale: Strength of a LoRA that was merged into the model.

    Returns:
        Markdown with the hub's YAML front matter. It holds no path of this machine.

    Source:
        huggingface_hub's `ModelCardData` for the front matter.
    """
    record = experiment.record
    chosen: dict[str, Any] = record.get("hyperparameters") or {}
    method = str(record.get("method", "dreambooth"))
    form = form or ("lora" if method == "lora" else "folder")
    base = public_name(str(record.get("base") or chosen.get("pretrained_model_name_or_path") or "unknown"))
    start = _start(experiment, str(chosen.get("pretrained_model_name_or_path") or base))
    prompt = " ".join(str(chosen.get("instance_prompt") or "").split())
    return render(
        "card.md",
        front_matter=_front_matter(base, method, form, prompt),
        name=experiment.name,
        method=method,
        version=__version__,
        base=base,
        below=start if start != base else None,
        instance_prompt=prompt,
        form=form,
        is_lora=form in _LORAS,
        file=file,
        scale=f"{scale:g}",
        snippet=_snippet(form, file, start, base, prompt),
        settings=_settings(chosen),
        facts=_facts(record),
        license=LICENSES.get(base),
    )


def _start(experiment: Experiment, name: str) -> str:
    """What training started from; of an experiment, which may be written as `experiments/exp1`, its name."""
    inside = Path(name).parent.name == experiment.root.name
    return public_name(Path(name).name if inside else name)


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


def _snippet(form: Form, file: str | None, start: str, base: str, prompt: str) -> str:
    """The lines that load it with diffusers alone."""
    mini = "mini.path()"
    lines = ["from diffusers import StableDiffusionPipeline", ""]
    if form == "folder":
        loaded = 'from_pretrained(".")  # the folder of this card'
    elif form == "single-file":
        loaded = f"from_single_file({json.dumps(file)}{f', config={mini}' if base == 'mini' else ''})"
    else:
        loaded = f"from_pretrained({mini if start == 'mini' else json.dumps(start)})"
    if mini in loaded:
        lines.insert(1, "from sdlab import mini")
    lines.append(f"pipeline = StableDiffusionPipeline.{loaded}")
    if form in _LORAS:
        name = json.dumps(file or "pytorch_lora_weights.safetensors")
        lines.append(f'pipeline.load_lora_weights(".", weight_name={name})')
    text = json.dumps(prompt or "a photo", ensure_ascii=False).replace("`", "'")
    lines.append(f'pipeline({text}).images[0].save("image.png")')
    return "\n".join(lines)


def _settings(chosen: dict[str, Any]) -> list[tuple[str, Any]]:
    known = {
        name: value for name, value in chosen.items() if value is not None and name not in PLACES | {"method"}
    }
    return [(name, _short(value)) for name, value in known.items()]


def _facts(record: dict[str, Any]) -> list[tuple[str, Any]]:
    facts = [(words, _short(record[name])) for name, words in _FACTS.items() if record.get(name) is not None]
    machine = record.get("environment") or {}
    return facts + [(name, machine[name]) for name in _MACHINE if machine.get(name)]


def _short(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value
