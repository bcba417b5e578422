"""Base models: from a name, folder, file or experiment to a pipeline and its parts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab import mini
from sdlab.config import unknown
from sdlab.experiment import Experiment, find
from sdlab.files import fingerprint

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

# They tell of optional packages that nothing here needs, each time that diffusers is imported.
for _name in ("transformers.utils.import_utils", "bitsandbytes.backends.cpu.ops"):
    logging.getLogger(_name).setLevel(logging.ERROR)

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_WEIGHTS_AND_SETTINGS = {".safetensors", ".bin", ".json", ".txt"}
# The homework's prompts are harmless; the checker needs 1.2 GB and blackens images at random.
_WITHOUT: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}


@dataclass(frozen=True)
class BaseModel:
    """Where a base model's weights are.

    Args:
        name: As the user wrote it.
        source: A diffusers folder, a single file, or a hub id.
        kind: `folder`, `file` or `hub`.
        root_name: What it was trained from in the first place: `mini`, `sd15`, a folder …
        loras: LoRA files on top of it, in the order of their training.
        lora_scale: How much of the last one is added.
        checkpoint: The weights of an earlier step, which take the place of the experiment's last.
        experiment: What trained it; None for what nobody trained here.
    """

    name: str
    source: str
    kind: str
    root_name: str
    loras: tuple[Path, ...] = ()
    lora_scale: float = 1.0
    checkpoint: Path | None = None
    experiment: Experiment | None = None


def resolve(base: str | Path, root: str | Path = "experiments") -> BaseModel:
    """Finds out what a name means.

    Args:
        base: `mini`, `sd15`, an experiment's name or folder, a diffusers folder, a single-file checkpoint,
            or a hub id `owner/name`. `LORA@SCALE` adds so much of a LoRA experiment (1 is all of it), and
            `MODEL+LORA` or `MODEL+LORA@SCALE` adds it to another model than it was trained on.
            `EXPERIMENT@stepN` is the experiment after its checkpoint of step N.
        root: The folder of all experiments.

    Returns:
        Where its weights are. Nothing is loaded.

    Raises:
        ValueError: It is none of these, or an experiment that isn't finished.
    """
    name, path = str(base), Path(base)
    if name == "mini":
        return BaseModel(name, str(mini.path()), "folder", "mini")
    if name == "sd15":
        return BaseModel(name, SD15, "hub", "sd15")
    for folder in (Path(root) / path, path):
        if (folder / "experiment.json").is_file():
            return _of_experiment(Experiment.load(folder))
    if (path / "model_index.json").is_file():
        return BaseModel(name, name, "folder", _root_of_folder(path))
    if path.is_file() and path.suffix in (".safetensors", ".ckpt"):
        return BaseModel(name, name, "file", name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not path.parent.exists():
        return BaseModel(name, name, "hub", "sd15" if name == SD15 else name)
    if at_step := re.fullmatch(r"([^+@]+)@step(\d+)", name):
        return _at_checkpoint(at_step[1], int(at_step[2]), root)
    combined = re.fullmatch(r"(?:(.+)\+)?([^+@]+)(?:@([^@]+))?", name)
    if combined and (combined[1] or combined[3]):
        return _combination(combined[1], combined[2], combined[3] or "1", root)
    choices = ["mini", "sd15", *(experiment.name for experiment in find(root))]
    raise ValueError(
        f"{unknown('base model', name, choices)} It may also be a hub id (owner/name), "
        "a folder with model_index.json, or a .safetensors or .ckpt file."
    )


def _of_experiment(experiment: Experiment) -> BaseModel:
    if (status := experiment.status) != "finished":
        raise ValueError(
            f"The experiment {experiment.name!r} is {status}, a base model must be finished. "
            f"Train it to its end first: train({experiment.name!r}, ...)."
        )
    record = experiment.record
    if record["method"] == "dreambooth":
        folder = str(experiment.model_folder)
        return BaseModel(experiment.name, folder, "folder", record["base"], experiment=experiment)
    below = resolve(record["hyperparameters"]["pretrained_model_name_or_path"], experiment.root)
    loras = (*below.loras, experiment.lora_file)
    return replace(below, name=experiment.name, loras=loras, experiment=experiment)


def checkpoint_names(experiment: str | Path, root: str | Path = "experiments") -> list[str]:
    """Names the checkpoints of an experiment, for `generate` and `score`.

    Args:
        experiment: Its name or folder; train with `checkpoints_total_limit=None` to have all of them.
        root: The folder of all experiments.

    Returns:
        `EXPERIMENT@stepN` by step; without the last step, which is the experiment itself.

    Raises:
        ValueError: There is no such experiment.
    """
    found = Experiment.load(experiment, root)
    steps = sorted(
        int(folder.name.removeprefix("step_")) for folder in found.checkpoints_folder.glob("step_*")
    )
    return [f"{found.name}@step{step}" for step in steps if step != found.record.get("steps")]


def _at_checkpoint(name: str, step: int, root: str | Path) -> BaseModel:
    """`EXPERIMENT@stepN`."""
    experiment = Experiment.load(name, root)
    model = _of_experiment(experiment)
    file = experiment.checkpoints_folder / f"step_{step:06d}" / "weights.safetensors"
    if not file.is_file():
        there = [
            one.name.removeprefix("step_").lstrip("0") for one in sorted(file.parent.parent.glob("step_*"))
        ]
        raise ValueError(
            f"{name!r} has no checkpoint of step {step}, but of {', '.join(there) or 'no step at all'}. "
            "Train with --checkpoints_total_limit None and the --checkpointing_steps that you want to see."
        )
    return replace(model, name=f"{name}@step{step}", checkpoint=file)


def _combination(model: str | None, lora: str, scale: str, root: str | Path) -> BaseModel:
    """`MODEL+LORA@SCALE`; without a model, the LoRA's own base."""
    experiment = Experiment.load(lora, root)
    if experiment.record["method"] != "lora":
        raise ValueError(f"Only a LoRA can be added at a scale, and {lora!r} is a DreamBooth. Name it alone.")
    if not re.fullmatch(r"\d+(\.\d+)?", scale):
        raise ValueError(f"A LoRA's scale must be a number from 0 on, got {scale!r}. Usual: 0 to 1.5.")
    alone = _of_experiment(experiment)
    if model is not None:
        below = resolve(model, root)
        alone = replace(below, loras=(*below.loras, experiment.lora_file), experiment=experiment)
    name = f"{model}+{lora}" if model else lora
    return replace(alone, name=f"{name}@{scale}", lora_scale=float(scale))


def _root_of_folder(path: Path) -> str:
    return "mini" if path.resolve() == Path(mini.path()).resolve() else str(path)


def load_pipeline(
    base: str | Path, *, root: str | Path = "experiments", dtype: torch.dtype | None = None
) -> StableDiffusionPipeline:
    """Loads a base model or a finished experiment as a diffusers pipeline, ready to generate.

    Args:
        base: Anything that `resolve` knows.
        root: The folder of all experiments.
        dtype: Of the weights; None is float32.

    Returns:
        The pipeline on the CPU, without safety checker; a LoRA is an adapter, so that its scale can be set.

    Raises:
        ValueError: The base is unknown.
        OSError: The weights can't be read or downloaded.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    model = resolve(base, root)
    options = _WITHOUT | {"requires_safety_checker": False, "dtype": dtype or torch.float32}
    with quiet():
        if model.kind == "file":
            pipeline = _from_file(model, options)
        else:
            pipeline = StableDiffusionPipeline.from_pretrained(local_folder(model), **options)
        for lora in model.loras:
            fuse(pipeline)  # all but the last become part of the weights
            pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
        if model.checkpoint:
            _go_back(pipeline, model.checkpoint)
        if model.lora_scale != 1:
            pipeline.set_adapters(pipeline.get_active_adapters(), model.lora_scale)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _go_back(pipeline: StableDiffusionPipeline, checkpoint: Path) -> None:
    """Overwrites what was trained by a checkpoint's weights, which are named as in training."""
    import torch
    from safetensors.torch import load_file

    parts = (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder))
    weights = {  # diffusers counts the adapters that it loads, peft's in training is called default
        re.sub(r"\.default_\d+\.", ".default.", f"{part_name}.{name}"): weight
        for part_name, part in parts
        for name, weight in part.named_parameters()
    }
    with torch.no_grad():
        for name, value in load_file(checkpoint).items():
            weights[name].copy_(value)


def _from_file(model: BaseModel, options: dict[str, Any]) -> StableDiffusionPipeline:
    """A single file's weights; diffusers takes the rest of the model, such as the tokenizer, from the hub."""
    from diffusers import StableDiffusionPipeline

    try:
        return StableDiffusionPipeline.from_single_file(model.source, **options)
    except OSError as error:
        raise OSError(
            f"{model.source} holds weights alone, and the rest of the model can't be downloaded. Convert it "
            f"once, and take the folder as base: sdlab convert {model.source} cache_dir/models/my_model."
        ) from error


def fuse(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """Adds a pipeline's loaded LoRA into its weights and drops the adapter: the same images, computed faster.

    Args:
        pipeline: With or without a LoRA.

    Returns:
        The same pipeline, without adapters.
    """
    if pipeline.get_active_adapters():
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    return pipeline


def local_folder(model: BaseModel) -> Path:
    """Gives the folder that a base model is loaded from; a hub model is downloaded once into the hub's cache.

    Args:
        model: Of kind `folder` or `hub`.

    Returns:
        The diffusers folder.

    Raises:
        OSError: It isn't in the cache and can't be downloaded.
    """
    from diffusers import StableDiffusionPipeline

    if model.kind == "folder":
        return Path(model.source)
    try:
        return Path(StableDiffusionPipeline.download(model.source, **_WITHOUT))
    except OSError as error:
        reason = str(error.__cause__ or error).splitlines()[0][:120]
        raise OSError(
            f"The base model {model.name!r} isn't on this machine, and {model.source} can't be downloaded "
            f"({reason}). Check the name and the network. Other ways: a folder in the diffusers layout, or "
            "./download_and_convert.sh with the address of a checkpoint, which makes "
            "cache_dir/models/civitai_model; each can be the base. 'mini' is here already."
        ) from error


def base_fingerprint(base: str | Path, root: str | Path = "experiments") -> str:
    """Hashes a base model's weights and settings.

    Args:
        base: Anything that `resolve` knows.
        root: The folder of all experiments.

    Returns:
        16 hexadecimal digits; equal for equal contents, wherever they lie.
    """
    model = resolve(base, root)
    if model.kind == "file":
        parts = [fingerprint([model.source])]
    else:
        folder = local_folder(model)
        parts = [fingerprint(_files(folder), relative_to=folder)]
    files = [*model.loras, *([model.checkpoint] if model.checkpoint else [])]
    parts += [fingerprint([file]) for file in files]
    return "+".join(parts) + (f"@{model.lora_scale:g}" if model.lora_scale != 1 else "")


def _files(folder: Path) -> list[Path]:
    """The files of the pipeline's parts, one level deep as diffusers writes them."""
    files = [*folder.glob("*.json"), *folder.glob("[!.]*/*")]
    return [file for file in files if file.suffix in _WEIGHTS_AND_SETTINGS]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps diffusers and transformers from telling of every file that they load, while the block runs."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        diffusers_logging.enable_progress_bar()
        if bars:
            transformers_logging.enable_progress_bar()
