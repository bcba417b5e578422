"""What differs by base model and machine, in one table: resolution, learning rates, steps, memory."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sdlab.config import METHODS, DreamBooth, LoRA, from_dict, unknown
from sdlab.machine import this_machine
from sdlab.models import Base, resolve


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Good settings for one base model on one kind of machine.

    Args:
        name: Its key in `PROFILES`.
        resolution: Side of the images in pixels.
        instance_prompt: What the instance images are called.
        class_prompt: What the class images are called.
        num_class_images: For prior preservation.
        dreambooth_learning_rate: For DreamBooth.
        dreambooth_steps: For DreamBooth.
        lora_learning_rate: The best of `lora_learning_rates`.
        lora_learning_rates: The homework's sweep: learns nothing, a bit, well, destroys.
        lora_steps: For a LoRA.
        lora_ranks: The homework's sweep of ranks at `lora_learning_rate`.
        lora_text_encoder: Whether a LoRA trains the text encoder too.
        train_batch_size: Instance images in a step.
        lr_scheduler: Of the learning rate.
        checkpointing_steps: Steps between two checkpoints.
        num_inference_steps: For generating.
        guidance_scale: For generating.
        images_per_batch: For generating.
        use_8bit_adam: To save memory.
        gradient_checkpointing: To save memory.
        mixed_precision: To save memory and time.
        allow_tf32: To save time.
        num_held_out_images: For the validation loss.
        validation_steps: Steps between two validations.
    """

    name: str
    resolution: int
    instance_prompt: str = "a photo of sks woman face"
    class_prompt: str = "a photo of woman face"
    num_class_images: int
    dreambooth_learning_rate: float
    dreambooth_steps: int
    lora_learning_rate: float
    lora_learning_rates: tuple[float, ...]
    lora_steps: int
    lora_ranks: tuple[int, ...]
    lora_text_encoder: bool = False
    train_batch_size: int = 1
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


_SD15 = Profile(
    name="sd15",
    resolution=512,
    num_class_images=200,
    dreambooth_learning_rate=2e-6,
    dreambooth_steps=800,
    lora_learning_rate=2e-4,
    lora_learning_rates=(2e-6, 2e-5, 2e-4, 2e-3),
    lora_steps=800,
    lora_ranks=(4, 8, 2),
    num_inference_steps=30,
    images_per_batch=4,
    allow_tf32=True,
)

PROFILES: dict[str, Profile] = {
    "mini": Profile(
        name="mini",
        resolution=128,
        num_class_images=64,
        dreambooth_learning_rate=2e-4,
        dreambooth_steps=400,
        lora_learning_rate=5e-3,
        lora_learning_rates=(5e-5, 5e-4, 5e-3, 5e-2),
        lora_steps=150,
        lora_ranks=(4, 8, 2),
        lora_text_encoder=True,
        train_batch_size=4,  # a small model needs less noise in its gradient
        lr_scheduler="cosine",
        checkpointing_steps=100,
        validation_steps=50,
        guidance_scale=2.0,
        images_per_batch=8,
    ),
    "sd15": _SD15,
    "sd15-16gb": replace(
        _SD15, name="sd15-16gb", use_8bit_adam=True, gradient_checkpointing=True, mixed_precision="fp16"
    ),
    "sd15-8gb": replace(
        _SD15,
        name="sd15-8gb",
        use_8bit_adam=True,
        gradient_checkpointing=True,
        mixed_precision="fp16",
        images_per_batch=1,
    ),
}


def profile(base: Base = "mini", *, name: str = "auto", root: str | Path = "experiments") -> Profile:
    """Chooses the profile for a base model on this machine.

    Args:
        base: Anything that `models.resolve` knows, or what it gave.
        name: A key of `PROFILES`, or `auto`.
        root: The folder of all experiments.

    Returns:
        The profile of that name; with `auto` `mini` for the mini model and what was trained from it, else one
        of `sd15` by the GPU's memory.

    Raises:
        ValueError: The base or the name is unknown.
    """
    if name != "auto":
        if name not in PROFILES:
            raise ValueError(unknown("profile", name, ["auto", *PROFILES]))
        return PROFILES[name]
    if str(base) in PROFILES and base != "sd15":
        return PROFILES[str(base)]
    if resolve(base, root).root_name == "mini":
        return PROFILES["mini"]
    memory = this_machine().gpu_memory / 1e9
    if not memory or memory > 20:  # a machine without a GPU has no need to save the GPU's memory
        return PROFILES["sd15"]
    return PROFILES["sd15-16gb" if memory > 12 else "sd15-8gb"]


_profile = profile  # `hyperparameters` has an argument of that name


def hyperparameters(
    method: str,
    base: str | Path = "mini",
    *,
    profile: str = "auto",
    root: str | Path = "experiments",
    **overrides: Any,
) -> DreamBooth | LoRA:
    """Gives a method's hyperparameters: the base's profile, then what you set.

    Args:
        method: `dreambooth` or `lora`.
        base: The base model, see `models.resolve`.
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
    names = {item.name for item in fields(METHODS[method])}
    values = {name: value for name, value in vars(chosen).items() if name in names}
    values |= {"pretrained_model_name_or_path": str(base)}
    if method == "dreambooth":
        values |= {
            "learning_rate": chosen.dreambooth_learning_rate,
            "max_train_steps": chosen.dreambooth_steps,
        }
        values |= {"train_text_encoder": True, "with_prior_preservation": True}
    else:
        values |= {"learning_rate": chosen.lora_learning_rate, "max_train_steps": chosen.lora_steps}
        values |= {"train_text_encoder": chosen.lora_text_encoder, "rank": chosen.lora_ranks[0]}
    return from_dict({"method": method, **values, **overrides})
