"""What differs by base model and machine, in one table: resolution, learning rates, steps, memory."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdlab.config import METHODS, DreamBooth, Hyperparameters, LoRA, from_dict, unknown
from sdlab.experiment import Experiment
from sdlab.machine import Machine, this_machine
from sdlab.models import Base, BaseModel, resolve
from sdlab.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Good settings for one base model on one kind of machine, under the hyperparameters' names."""

    name: str
    resolution: int
    num_class_images: int
    dreambooth_learning_rate: float
    dreambooth_steps: int
    lora_learning_rate: float  # the best of the next
    lora_learning_rates: tuple[float, ...]  # the homework's sweep: learns nothing, a bit, well, destroys
    lora_steps: int
    lora_ranks: tuple[int, ...]  # the homework's sweep of ranks at `lora_learning_rate`
    dreambooth_text_encoder: bool = True
    prior_loss_weight: float = 1.0
    lora_text_encoder: bool = False
    dreambooth_batch_size: int = 1
    lora_batch_size: int = 1
    lr_scheduler: str = "constant"
    checkpointing_steps: int = 500
    num_inference_steps: int = 20
    guidance_scale: float = 7.5
    images_per_batch: int
    use_8bit_adam: bool = False
    gradient_checkpointing: bool = False
    mixed_precision: str = "no"
    allow_tf32: bool = False
    num_held_out_images: int = 2
    validation_steps: int = 100
    reason: str = ""  # why it suits this machine


def _profile_of(name: str, tables: dict[str, Any]) -> Profile:
    """A profile as profiles.toml has it; one such as `sd15-8gb` begins with the values of `sd15`."""
    values: dict[str, Any] = tables[name.split("-")[0]] | tables[name]
    values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Profile(name=name, **values)


_TABLES = tomllib.loads(Path(__file__).with_name("profiles.toml").read_text(encoding="utf-8"))
PROFILES = {name: _profile_of(name, _TABLES) for name in _TABLES}
_MIXED_PRECISION = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}


def profile(base: Base = "mini", *, name: str = "auto", root: str | Path = "experiments") -> Profile:
    """Chooses the profile for a base model on this machine.

    Args:
        base: Anything that `models.resolve` knows, or what it gave.
        name: A key of `PROFILES`, or `auto`.
        root: The folder of all experiments.

    Returns:
        The profile of that name; with `auto` `mini` for the mini model and what was trained from it, else one
        of `sd15` by the GPU's memory and the dtype that it is good at. `reason` says why.

    Raises:
        ValueError: The base or the name is unknown.
    """
    if name == "auto" and base != "sd15" and str(base) in PROFILES:
        name = str(base)
    if name == "auto":
        return PROFILES["mini"] if resolve(base, root).root_name == "mini" else for_machine(this_machine())
    if name not in PROFILES:
        raise ValueError(unknown("profile", name, ["auto", *PROFILES]))
    return PROFILES[name]


def for_machine(machine: Machine) -> Profile:
    """The profile of Stable Diffusion 1.5 that suits a machine, with the reason."""
    memory = machine.gpu_memory / 1e9
    if not memory:  # a machine without a GPU has no need to save the GPU's memory
        return replace(PROFILES["sd15"], reason=f"{machine.device}, because {machine.device_reason}")
    name = "sd15" if memory > 20 else "sd15-16gb" if memory > 14 else "sd15-8gb"
    return replace(
        PROFILES[name],
        mixed_precision=_MIXED_PRECISION[machine.dtype],
        use_8bit_adam=PROFILES[name].use_8bit_adam and machine.device == "cuda",
        reason=f"{machine.processor} has {memory:.0f} GB and {machine.dtype_reason}",
    )


_profile = profile  # `hyperparameters` has an argument of that name


def hyperparameters(
    method: str,
    base: str | Path = "mini",
    *,
    subject: str | Subject | None = None,
    profile: str = "auto",
    root: str | Path = "experiments",
    **overrides: Any,
) -> DreamBooth | LoRA:
    """Gives a method's hyperparameters: the base's profile, then what you set.

    Args:
        method: `dreambooth` or `lora`.
        base: The base model, see `models.resolve`.
        subject: Who or what the photos show, such as `sks dog`: it sets `instance_prompt` and `class_prompt`.
            None takes the base's own where it is an experiment, else the dataset's, else `sks woman`.
        profile: A key of `PROFILES`; `auto` takes what fits the base and this machine.
        root: The folder of all experiments.
        **overrides: Hyperparameters by name, such as `learning_rate=1e-4`.

    Returns:
        The hyperparameters.

    Raises:
        ValueError: An unknown method, base or name (the message gives the nearest), or a bad value.
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    chosen = _profile(base, name=profile, root=root)
    values = {name: value for name, value in vars(chosen).items() if hasattr(METHODS[method], name)}
    name = base.name if isinstance(base, BaseModel) else getattr(base, "path", base)
    photos = overrides.get("instance_data_dir", Hyperparameters.instance_data_dir)
    values |= {"pretrained_model_name_or_path": str(name)} | _prompts(base, subject, root, photos)
    values |= {
        "learning_rate": getattr(chosen, f"{method}_learning_rate"),
        "max_train_steps": getattr(chosen, f"{method}_steps"),
        "train_batch_size": getattr(chosen, f"{method}_batch_size"),
        "train_text_encoder": getattr(chosen, f"{method}_text_encoder"),
    }
    if method == "lora":  # small enough to keep its activations
        values |= {"rank": chosen.lora_ranks[0], "gradient_checkpointing": False}
    else:
        values["with_prior_preservation"] = True
    if "instance_prompt" in overrides:
        values["class_prompt"] = _class_prompt(str(overrides["instance_prompt"]), values["class_prompt"])
    return from_dict({"method": method, **values, **overrides})


def _prompts(
    base: str | Path, subject: str | Subject | None, root: str | Path, photos: str | Path
) -> dict[str, str]:
    """Instance and class prompt of the subject; of none, the base's where it was trained, or the photos'."""
    trained = resolve(base, root).experiment if subject is None and str(base) not in PROFILES else None
    if trained is not None:
        before = trained.hyperparameters
        after = before.class_prompt or before.subject.class_prompt
        return {"instance_prompt": before.instance_prompt, "class_prompt": after}
    who = _subject_in(photos) if subject is None else Subject.parse(subject)
    if not who.rare_word:
        raise ValueError(
            f"A subject that is trained needs a rare word before its class, got {who.phrase!r}. "
            f"Name it {'sks ' + who.class_noun!r}."
        )
    return {"instance_prompt": who.instance_prompt, "class_prompt": who.class_prompt}


def _class_prompt(instance_prompt: str, usual: str) -> str:
    """The usual class prompt where its class is the same, else the instance prompt without its rare word."""
    if Subject.of(instance_prompt, usual).class_noun == Subject.of(usual, usual).class_noun:
        return usual
    who = Subject.of(instance_prompt)
    if not who.rare_word or who.kind == "style":
        return who.class_prompt
    return instance_prompt.replace(f"{who.rare_word} ", "", 1)


def _subject_in(photos: str | Path) -> Subject:
    """Who or what the photos of a folder show, as `prepare` was told; `sks woman` where it wasn't."""
    try:
        record = json.loads((Path(photos).expanduser() / "dataset.json").read_text(encoding="utf-8"))
        return Subject.parse(record["subject"])
    except (OSError, ValueError, KeyError, TypeError):
        return Subject()


def subject_of(experiments: Iterable[str | Experiment], root: str | Path = "experiments") -> Subject:
    """Who or what experiments were trained on, by their records; where none was, what the dataset shows.

    Raises:
        ValueError: They were trained on different subjects.
    """
    parts = [part for one in experiments for part in re.split(r"[+@]", getattr(one, "name", str(one)))]
    folders = [Path(root).expanduser() / part for part in parts] + [Path(part) for part in parts]
    trained = [Experiment.load(one) for one in folders if (one / "experiment.json").is_file()]
    found = {subject.phrase: subject for subject in (one.hyperparameters.subject for one in trained)}
    if len(found) > 1:
        raise ValueError(
            f"The experiments were trained on different subjects: {', '.join(found)}. "
            "Name those of one subject, or say whom the prompts mean: --subject."
        )
    return next(iter(found.values()), None) or _subject_in(Hyperparameters.instance_data_dir)
