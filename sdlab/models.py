"""Base models: a name, folder, file or experiment is resolved once; the object is asked for all the rest."""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from sdlab import mini
from sdlab.config import unknown
from sdlab.experiment import Experiment, find, step_of
from sdlab.files import fingerprint
from sdlab.formats.checkpoints import (
    CONFIGS,
    LORA_DOWN,
    PARTS,
    WEIGHTS,
    NotACheckpoint,
    check_architecture,
    check_folder,
    check_lora,
    check_weights,
    checkpoint_shapes,
    is_safetensors,
    read_config,
    weight_files,
)
from sdlab.formats.conversion import SD15, WITHOUT, clip_tokenizer, load_checkpoint, quiet

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

# They tell of optional packages that nothing here needs, each time that diffusers is imported, and of each
# prompt that is cut, which `sampling.warn_of_cut_prompts` says once.
for _name in (
    *("transformers.utils.import_utils", "bitsandbytes.backends.cpu.ops"),
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.pipelines.controlnet.pipeline_controlnet",
):
    logging.getLogger(_name).setLevel(logging.ERROR)

_WEIGHTS_AND_SETTINGS = {".safetensors", ".bin", ".json", ".txt"}


@dataclass(frozen=True)
class BaseModel:
    """A base model: what its name stands for, and what is asked of it."""

    name: str  # as the user wrote it
    source: str  # where the whole model's weights are: a diffusers folder, a single file, a hub id
    kind: Literal["folder", "file", "hub"]
    root_name: str  # what it was trained from in the first place: `mini`, `sd15`, a folder …
    lora: Path | None = None  # the file of a LoRA on top of `below`, which may have LoRAs itself
    below: BaseModel | None = None
    trained_on: str | None = None  # fingerprint of what the LoRA was trained on, where `below` should be that
    scale: float = 1.0  # how much of the LoRA is added
    checkpoint: Path | None = None  # weights of an earlier step, in place of the experiment's last
    experiment: Experiment | None = None  # what trained it

    @property
    def label(self) -> str:
        """The name of its images' folder in results/: without the places of files."""
        return Path(self.name).name.removesuffix(".safetensors").removesuffix(".ckpt")

    @property
    def fingerprint(self) -> str:
        """A hash of the weights and settings, equal for equal contents wherever they lie."""
        if self.below and self.lora:
            parts = [self.below.fingerprint, fingerprint([self.lora])]
        elif self.kind == "file":
            parts = [fingerprint([self.source])]
        else:
            folder = self.folder()  # the parts of a pipeline lie one level deep
            files = [file for file in folder.glob("[!.]*/*") if file.suffix in _WEIGHTS_AND_SETTINGS]
            parts = [fingerprint([*folder.glob("*.json"), *files], relative_to=folder)]
        parts += [fingerprint([self.checkpoint])] if self.checkpoint else []
        return "+".join(parts) + (f"@{self.scale:g}" if self.scale != 1 else "")

    def folder(self) -> Path:
        """The diffusers folder; a hub model is downloaded once into the hub's cache."""
        from diffusers import StableDiffusionPipeline

        if self.kind == "folder":
            return Path(self.source)
        try:
            return Path(StableDiffusionPipeline.download(self.source, **WITHOUT))
        except OSError as error:
            reason = str(error.__cause__ or error).splitlines()[0][:120]
            raise OSError(
                f"The base model {self.name!r} isn't on this machine, and {self.source} can't be downloaded "
                f"({reason}). Check the name and the network. Other ways: a folder in the diffusers layout, "
                "or ./download_and_convert.sh with the address of a checkpoint, which makes "
                "cache_dir/models/civitai_model; each can be the base. 'mini' is here already."
            ) from error

    @property
    def resolution(self) -> int:
        """Side in pixels of the images that it was trained on."""
        if self.experiment is not None:
            return self.experiment.hyperparameters.resolution
        halvings = len(self._config("vae")["block_out_channels"]) - 1
        return int(self._config("unet")["sample_size"]) * 2**halvings

    def _config(self, part: str) -> dict[str, Any]:
        return read_config((CONFIGS if self.kind == "file" else self.folder()) / part / "config.json")

    def check(self, width: int | None = None, height: int | None = None) -> None:
        """Examines the weights before anything is made of them; warns of a size that it wasn't made for."""
        if self.below and self.lora:
            self.below.check()
            self.check_below()
        try:
            self._check_files()
        except (NotACheckpoint, FileNotFoundError) as error:
            if self.experiment is None:
                raise
            what = str(error).partition(". ")[0]  # and not the advice to download it
            raise ValueError(
                f"What {self.experiment.name} trained is no longer whole: {what}. Bring back a copy, or "
                f"delete {self.experiment.path} and train it again."
            ) from error
        sides, made = [side for side in (width, height) if side], self.resolution
        if sides and (min(sides) < 0.75 * made or max(sides) > 1.5 * made):
            warnings.warn(
                f"{self.name} was made for images of {made}×{made}, and {width}×{height} is asked for. Much "
                "smaller ones turn to mush, much larger ones repeat their subject.",
                stacklevel=3,
            )

    def _check_files(self) -> None:
        """Weights that were trained here are known to be numbers, so that they are not read."""
        if self.lora and self.experiment is None:
            check_lora(self.lora, int(self._config("unet")["cross_attention_dim"]))
            check_weights(self.lora)
        elif self.lora:
            checkpoint_shapes(self.lora)
        elif self.kind == "file":
            check_architecture(Path(self.source), self._config("unet"))
            check_weights(Path(self.source))
        elif self.source != str(mini.path()):
            check_folder(self.folder(), numbers=self.kind == "folder" and self.experiment is None)
        if self.checkpoint:
            checkpoint_shapes(self.checkpoint)

    def check_below(self) -> None:
        """Raises ValueError where another model lies in place of the one that the LoRA was trained on."""
        if self.below is not None and self.trained_on not in (None, self.below.fingerprint):
            raise ValueError(
                f"{self.name} was trained on another {self.below.name} than the one that is there now "
                f"(fingerprint {self.trained_on}, now {self.below.fingerprint}). Put the old one back, train "
                f"{self.name} again under another name, or add it to the new one on purpose: "
                f"{self.below.name}+{self.name}."
            )

    def load(self, dtype: torch.dtype | None = None) -> StableDiffusionPipeline:
        """Loads it as a diffusers pipeline on the CPU, without safety checker; a LoRA is an adapter."""
        with quiet():
            if self.below and self.lora:
                pipeline = fuse(self.below.load(dtype))
                _add_lora(pipeline, self.lora, whole=self.experiment is None)
            else:
                pipeline = self._load_whole(dtype)
            if self.checkpoint:
                _go_back(pipeline, self.checkpoint)
            if self.scale != 1:
                pipeline.set_adapters(pipeline.get_active_adapters(), self.scale)
        pipeline.tokenizer.model_max_length = pipeline.text_encoder.config.max_position_embeddings
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _load_whole(self, dtype: torch.dtype | None) -> StableDiffusionPipeline:
        import torch
        from diffusers import StableDiffusionPipeline

        dtype = dtype or torch.float32
        if self.kind == "file":
            try:
                return load_checkpoint(Path(self.source), tokenizer=clip_tokenizer()).to(dtype)
            except OSError as error:
                raise OSError(
                    f"{self.source} holds weights alone, and the rest of the model can't be downloaded. "
                    f"Convert it once, and take the folder as base: sdlab convert {self.source} "
                    "cache_dir/models/my_model."
                ) from error
        files = [weight_files(self.folder() / part) for part in PARTS]
        variant = "fp16" if any(some and ".fp16." in some[0].name for some in files) else None
        options = WITHOUT | {"requires_safety_checker": False, "dtype": dtype, "variant": variant}
        return StableDiffusionPipeline.from_pretrained(self.folder(), **options)


@contextmanager
def downloads(source: str, what: str, way_out: str) -> Iterator[None]:
    """Loads a model of the hub or a folder quietly; where it can't, says why, and the way out."""
    try:
        with quiet():
            yield
    except OSError as error:
        reason = str(error.__cause__ or error).splitlines()[0][:120]
        here = Path(source).is_dir()
        why = "holds no such model" if here else "isn't on this machine and can't be downloaded"
        raise OSError(f"{what} {why} ({reason}). {way_out}") from error


Base = str | Path | Experiment | BaseModel
"""What a function takes that needs a base model."""


def resolve(base: Base, root: str | Path = "experiments") -> BaseModel:
    """Finds out what a name means; a public function does it once and passes the object on.

    `mini`, `sd15`, an experiment, its name or folder, a diffusers folder, a single-file checkpoint, or a hub
    id `owner/name`. `LORA@SCALE` adds so much of a LoRA experiment (1 is all of it); `MODEL+LORA` and
    `MODEL+LORA@SCALE` add it, or a LoRA's file from elsewhere, to another model. `EXPERIMENT@stepN` is the
    experiment after its checkpoint of step N. Nothing is loaded.

    Raises:
        ValueError: It is none of these, or an experiment that isn't finished.
    """
    if isinstance(base, BaseModel):
        return base
    if isinstance(base, Experiment):
        return _of_experiment(base)
    name, path = str(base), Path(base).expanduser()
    if name == "mini":
        return BaseModel(name, str(mini.path()), "folder", "mini")
    if name == "sd15":
        return BaseModel(name, SD15, "hub", "sd15")
    for folder in (Path(root).expanduser() / path, path):
        if (folder / "experiment.json").is_file():
            return _of_experiment(Experiment.load(folder))
    if (path / "model_index.json").is_file():
        is_mini = path.resolve() == Path(mini.path()).resolve()
        return BaseModel(name, str(path), "folder", "mini" if is_mini else name)
    if path.is_file() and path.suffix.lower() in WEIGHTS:
        return BaseModel(name, str(path), "file", name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not path.parent.exists():
        return BaseModel(name, name, "hub", "sd15" if name == SD15 else name)
    if at_step := re.fullmatch(r"([^+@]+)@step(\d+)", name):
        return _at_checkpoint(at_step[1], int(at_step[2]), root)
    combined = re.fullmatch(r"(?:(.+)\+)?([^+@]+)(?:@([^@]+))?", name)
    if combined and (combined[1] or combined[3]):
        return _combination(combined[1], combined[2], combined[3], root)
    choices = ["mini", "sd15", *(experiment.name for experiment in find(root))]
    raise ValueError(
        f"{unknown('base model or experiment', name, choices)} It may also be a hub id (owner/name), "
        "a folder with model_index.json, or a .safetensors or .ckpt file."
    )


def load_pipeline(
    base: Base, *, root: str | Path = "experiments", dtype: torch.dtype | None = None
) -> StableDiffusionPipeline:
    """Loads a base model or a finished experiment as a diffusers pipeline on the CPU."""
    return resolve(base, root).load(dtype)


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
    start = record["hyperparameters"]["pretrained_model_name_or_path"]
    try:
        below = resolve(start, experiment.root)
    except ValueError as error:
        raise ValueError(
            f"{experiment.name} was trained on {start} and needs it: {error} Or bring the old {start} back."
        ) from error
    found = _with_lora(below, experiment.name, experiment.lora_file, experiment)
    return replace(found, trained_on=record.get("base_fingerprint"))


def _with_lora(below: BaseModel, name: str, file: Path, experiment: Experiment | None) -> BaseModel:
    whole = (below.source, below.kind, below.root_name)
    return BaseModel(name, *whole, lora=file, below=below, experiment=experiment)


def checkpoint_names(experiment: str | Path, root: str | Path = "experiments") -> list[str]:
    """Names the checkpoints of an experiment for `generate` and `score`, `EXPERIMENT@stepN` by step.

    The last step, which is the experiment itself, is left out.
    """
    found = Experiment.load(experiment, root)
    return [f"{found.name}@step{step}" for step in _steps(found) if step != found.record.get("steps")]


def _steps(experiment: Experiment) -> list[int]:
    return [step_of(place) for place in experiment.checkpoints]


def _at_checkpoint(name: str, step: int, root: str | Path) -> BaseModel:
    """`EXPERIMENT@stepN`."""
    experiment = Experiment.load(name, root)
    model = _of_experiment(experiment)
    file = experiment.checkpoints_folder / f"step_{step:06d}" / "weights.safetensors"
    if not file.is_file():
        there = ", ".join(map(str, _steps(experiment))) or "no step at all"
        raise ValueError(
            f"{name!r} has no checkpoint of step {step}, but of {there}. "
            "Train with --checkpoints_total_limit None and the --checkpointing_steps that you want to see."
        )
    return replace(model, name=f"{name}@step{step}", checkpoint=file)


def _combination(model: str | None, lora: str, scale: str | None, root: str | Path) -> BaseModel:
    """`MODEL+LORA@SCALE`; without a model, the LoRA's own base."""
    if scale is not None and not re.fullmatch(r"\d+(\.\d+)?", scale):
        raise ValueError(f"A LoRA's scale must be a number from 0 on, got {scale!r}. Usual: 0 to 1.5.")
    below = resolve(model, root) if model is not None else None
    file, experiment = Path(lora).expanduser(), None
    if not (file.suffix.lower() in WEIGHTS and file.is_file()):
        experiment = Experiment.load(lora, root)
        if experiment.record["method"] != "lora":
            raise ValueError(
                f"Only a LoRA can be added at a scale, and {lora!r} is a DreamBooth. Name it alone."
            )
        found, file = _of_experiment(experiment), experiment.lora_file
    elif below is None:
        raise ValueError(f"{file} needs a model that it is added to. Name both: sd15+{file}@{scale or 1}.")
    if below is not None:
        name = f"{below.label}+{experiment.name if experiment else file.stem}"
        found = _with_lora(below, name, file, experiment)
    return found if scale is None else replace(found, name=f"{found.name}@{scale}", scale=float(scale))


def _add_lora(pipeline: StableDiffusionPipeline, file: Path, *, whole: bool) -> None:
    """Adds a LoRA as an adapter; `whole` refuses a file of which a part doesn't fit."""
    with TemporaryDirectory() as folder:
        named = file
        if is_safetensors(file) and file.suffix != ".safetensors":  # by which alone diffusers knows it
            named = Path(shutil.copy(file, Path(folder) / "lora.safetensors"))
        try:
            pipeline.load_lora_weights(named.parent, weight_name=named.name)
        except (ValueError, KeyError, IndexError, RuntimeError) as error:
            raise NotACheckpoint(f"{file} can't be added to the base model: {error}") from error
    wanted = sum(bool(re.search(LORA_DOWN, name)) for name in checkpoint_shapes(file))
    parts = (pipeline.unet, pipeline.text_encoder)
    added = sum("lora_A" in name for part in parts for name, _ in part.named_parameters())
    _set_strengths(pipeline, file)
    if whole and added != wanted:
        raise NotACheckpoint(
            f"{file} has {wanted} layers, and {added} of them fit the base. Take the base that it was made "
            "for."
        )


def _set_strengths(pipeline: StableDiffusionPipeline, file: Path) -> None:
    """Scales each layer by its own alpha / rank in kohya's files; diffusers takes one alpha for many."""
    from peft.tuners.lora import LoraLayer
    from safetensors import safe_open

    if not is_safetensors(file):
        return
    names = checkpoint_shapes(file).keys()
    with safe_open(file, "pt") as opened:
        alphas = {name: float(opened.get_tensor(name)) for name in names if name.endswith(".alpha")}
    for start, part in (("lora_unet", pipeline.unet), ("lora_te_text_model", pipeline.text_encoder)):
        for name, layer in part.named_modules() if alphas else ():
            theirs = f"{start}_{name.removeprefix('text_model.').replace('.', '_')}"
            if isinstance(layer, LoraLayer) and f"{theirs}.lora_down.weight" in names:
                for adapter, rank in layer.r.items():
                    layer.scaling[adapter] = alphas.get(f"{theirs}.alpha", rank) / rank


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


def fuse(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """Adds a loaded LoRA into the pipeline's weights and drops the adapter: the same images, made faster."""
    if pipeline.get_active_adapters():
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    return pipeline
