"""Trained models as other programs read them: LoRA files, single-file checkpoints, diffusers folders."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Literal

import torch

from sdlab.cards import Form, kohya_entries, model_card, modelspec, public_name
from sdlab.config import unknown
from sdlab.experiment import Experiment
from sdlab.files import must_be_free, write_bytes, write_file
from sdlab.formats.conversion import quiet, save_pipeline
from sdlab.formats.names import kohya_weights, lean_settings, original_weights, read_lora, with_text_model
from sdlab.models import fuse, resolve


def export_lora(
    experiment: str | Path,
    out: str | Path,
    *,
    format: Literal["kohya", "diffusers"] = "kohya",
    half: bool = False,
    root: str | Path = "experiments",
) -> Path:
    """Writes a LoRA as one file for another program, and its model card beside it.

    Args:
        experiment: Name or folder of a finished LoRA experiment.
        out: The .safetensors file to make.
        format: `kohya` for A1111, Forge, ComfyUI and Civitai; `diffusers` for `load_lora_weights`.
        half: Write float16, half the size; else float32, as trained.
    """
    source = _finished_lora(experiment, root)
    out = Path(out).expanduser()
    _check_out(out, format, ("kohya", "diffusers"))
    try:
        resolve(source).check_below()
    except ValueError as error:  # the file is right all the same
        warnings.warn(str(error), stacklevel=2)
    except OSError:  # the base isn't on this machine
        pass
    weights, configs = read_lora(source.lora_file)
    entries = modelspec(source.name, source.record.get("base", ""), lora=True, experiment=source)
    if format == "kohya":
        weights = kohya_weights(weights, configs)
        entries |= kohya_entries(source, weights)
        if any(key.endswith(".dora_scale") for key in weights):
            warnings.warn(
                f"{source.name} is a DoRA, which programs read differently: LyCORIS exactly, ComfyUI nearly, "
                "A1111 and diffusers wrongly. Merged into a model it is exact everywhere: sdlab export model "
                f"{source.name}.",
                stacklevel=2,
            )
    else:
        start = "text_encoder."  # its names are written as transformers 4 reads them, too
        weights = {
            start + with_text_model(name.removeprefix(start)) if name.startswith(start) else name: weight
            for name, weight in weights.items()
        }
        lean = {part: lean_settings(config).items() for part, config in configs.items()}
        settings = {f"{part}.{name}": value for part, values in lean.items() for name, value in values}
        if settings:
            entries["lora_adapter_metadata"] = json.dumps(settings, sort_keys=True)
    if half:
        weights = {name: weight.to(torch.float16) for name, weight in weights.items()}
    card = model_card(source, file=out.name, form="kohya" if format == "kohya" else "lora")
    return _save(weights, out, entries, card)


def export_model(
    base: str | Path,
    out: str | Path,
    *,
    format: Literal["single-file", "diffusers"] = "single-file",
    half: bool = False,
    root: str | Path = "experiments",
) -> Path:
    """Writes a whole model and its card; a LoRA is merged into the base model that it was trained on.

    Args:
        base: A finished experiment, any base model, or a LoRA at a scale: `lora_rank4@0.7`.
        out: The folder to make, or with `single-file` the .safetensors file.
        format: `single-file` for A1111, Forge and ComfyUI; `diffusers` for `from_pretrained`.
        half: Write float16, half the size; else float32.
    """
    model = resolve(base, root)
    model.check()
    out = Path(out).expanduser()
    one_file, trained, card = format == "single-file", model.experiment, ""
    _check_out(out, format, ("single-file", "diffusers"), is_file=one_file)
    if trained:
        form: Form = "single-file" if one_file else "folder"
        card = model_card(trained, file=out.name if one_file else None, form=form, scale=model.scale)
    pipeline = fuse(model.load())
    with quiet():
        pipeline.to(dtype=torch.float16 if half else torch.float32)
    if one_file:
        entries = modelspec(public_name(model.name), model.root_name, lora=False, experiment=trained)
        return _save(original_weights(pipeline), out, entries, card)
    save_pipeline(pipeline, out, card)
    return out


def _finished_lora(name: str | Path, root: str | Path) -> Experiment:
    experiment = Experiment.load(name, root)
    if (method := experiment.record["method"]) != "lora":
        raise ValueError(
            f"The experiment {experiment.name!r} is a {method} experiment, not a LoRA. "
            f"Export the whole model: sdlab export model {experiment.name}."
        )
    if (status := experiment.status) != "finished":
        raise ValueError(
            f"The experiment {experiment.name!r} is {status}, and only a finished one can be exported. "
            "Train it to its end first."
        )
    return experiment


def _check_out(out: Path, format: str, formats: tuple[str, ...], *, is_file: bool = True) -> None:
    """Makes sure that `out` can be made, and a file's card beside it."""
    if format not in formats:
        raise ValueError(unknown("format", format, formats))
    if is_file and out.suffix != ".safetensors":
        raise ValueError(f"out must end with .safetensors, got {str(out)!r}.")
    if not is_file and out.suffix in (".safetensors", ".ckpt"):
        raise ValueError(
            f"out must be a folder with format diffusers, got {str(out)!r}. One file: --format single-file."
        )
    must_be_free(out, *[out.with_suffix(".md")] * is_file)


def _save(weights: dict[str, torch.Tensor], out: Path, entries: dict[str, str], card: str) -> Path:
    """Writes a safetensors file, whole or not at all, and its card, if there is one, beside it."""
    from safetensors.torch import save_file

    with write_file(out, needed=sum(weight.nbytes for weight in weights.values())) as beside:
        save_file(weights, beside, metadata={"format": "pt", **entries})
        beside.chmod(0o644)  # safetensors writes for the owner alone
    if card:
        write_bytes(out.with_suffix(".md"), card.encode())
    return out
