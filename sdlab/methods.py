"""The training methods and their hyperparameters, under the names of diffusers' flags."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")
MIXED_PRECISIONS = ("no", "fp16", "bf16")


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What both methods share; names and meanings are those of diffusers' `train_dreambooth.py`.

    Args:
        pretrained_model_name_or_path: The base: `mini`, `sd15`, a hub id, a folder, a file, an experiment.
        instance_data_dir: The instance images.
        class_data_dir: The class images; None takes (and fills) `data/class_images/<key>`.
        instance_prompt: Names the subject by a rare word and its class: `a photo of sks woman face`.
        class_prompt: The same without the rare word.
        with_prior_preservation: Also learn from class images, so that the class stays what it was.
        prior_loss_weight: Weight of the class images' loss.
        num_class_images: Class images to train with; missing ones are sampled from the base model.
        resolution: Side of the square images in pixels, a multiple of 8.
        train_batch_size: Instance images in a step (with prior preservation as many class images besides).
        gradient_accumulation_steps: Batches whose gradients are summed for one step.
        gradient_checkpointing: Save memory by computing activations twice.
        learning_rate: Of the optimizer, after warm-up.
        lr_scheduler: One of diffusers' names, see `LR_SCHEDULERS`.
        lr_warmup_steps: Steps until the learning rate is reached (`constant` has no warm-up).
        max_train_steps: Steps in all.
        checkpointing_steps: Steps between two checkpoints.
        checkpoints_total_limit: How many checkpoints to keep; None keeps all.
        use_8bit_adam: AdamW of bitsandbytes, whose state takes a quarter of the memory.
        adam_beta1: Decay of the gradient's running mean.
        adam_beta2: Decay of the squared gradient's running mean.
        adam_weight_decay: Decoupled weight decay.
        adam_epsilon: Added to the denominator.
        max_grad_norm: The gradient's norm is clipped to this.
        mixed_precision: `no`, `fp16` or `bf16`.
        train_text_encoder: Train the text encoder too.
        snr_gamma: Weight the loss by min-SNR with this gamma (5 is usual); None weights all timesteps alike.
        seed: Of everything random; the same seed and images give the same weights.

    Raises:
        ValueError: A value breaks its rule; the message says which, and what is usual.

    Source:
        diffusers `examples/dreambooth/train_dreambooth.py` and `train_dreambooth_lora.py`.
    """

    pretrained_model_name_or_path: str = "mini"
    instance_data_dir: str = "data/instance_images"
    class_data_dir: str | None = None
    instance_prompt: str = "a photo of sks woman face"
    class_prompt: str | None = None
    with_prior_preservation: bool = False
    prior_loss_weight: float = 1.0
    num_class_images: int = 100
    resolution: int = 512
    train_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    learning_rate: float = 2e-6
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 0
    max_train_steps: int = 800
    checkpointing_steps: int = 500
    checkpoints_total_limit: int | None = 2
    use_8bit_adam: bool = False
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    train_text_encoder: bool = False
    snr_gamma: float | None = None
    seed: int = 0

    method: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_type(item.name, getattr(self, item.name), str(item.type))
        for name, minimum, usual in _MINIMA:
            if (value := getattr(self, name, None)) is not None and value < minimum:
                raise ValueError(f"{name} must be at least {minimum:g}, got {value:g}. {usual}")
        for name in ("learning_rate", "max_grad_norm", "adam_epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name):g}. {_USUAL[name]}")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 0 and below 1, got {getattr(self, name):g}. Usual: 0.9, 0.999."
                )
        for name, choices in (("lr_scheduler", LR_SCHEDULERS), ("mixed_precision", MIXED_PRECISIONS)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(unknown(name, value, choices))
        self._check_together()

    def _check_together(self) -> None:
        if self.resolution % 8:
            raise ValueError(
                f"resolution must be a multiple of 8, got {self.resolution}. Try {self.resolution // 8 * 8}."
            )
        if not self.instance_prompt.strip():
            raise ValueError("instance_prompt is empty. Name the subject: 'a photo of sks woman face'.")
        if self.with_prior_preservation and not (self.class_prompt or "").strip():
            raise ValueError(
                "with_prior_preservation needs a class_prompt, got none. It is the instance prompt without "
                "the rare word: "
                f"{' '.join(self.instance_prompt.replace('sks', '').split())!r}."
            )

    def as_dict(self) -> dict[str, Any]:
        """Gives what `from_dict` reads.

        Returns:
            Method and hyperparameters, ready for JSON.
        """
        return {"method": self.method, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class DreamBooth(Hyperparameters):
    """Train all weights of the UNet (and of the text encoder with `train_text_encoder`).

    Source:
        Ruiz et al. 2022, "DreamBooth", arXiv:2208.12242; diffusers `train_dreambooth.py`.
        Taught in: notebooks/02.
    """

    method: ClassVar[str] = "dreambooth"


@dataclass(frozen=True, kw_only=True)
class LoRA(Hyperparameters):
    """Train a low-rank addition to the attention layers: W + lora_alpha / rank · B A.

    Args:
        rank: Rows of A and columns of B.
        lora_alpha: Strength of the addition; None takes the rank, as diffusers does.

    Source:
        Hu et al. 2021, "LoRA", arXiv:2106.09685; diffusers `train_dreambooth_lora.py`.
    """

    learning_rate: float = 2e-4
    rank: int = 4
    lora_alpha: float | None = None

    method: ClassVar[str] = "lora"


METHODS: dict[str, type[Hyperparameters]] = {"dreambooth": DreamBooth, "lora": LoRA}

_USUAL = {
    "learning_rate": "On Stable Diffusion 1.5, 2e-6 is usual for DreamBooth and 2e-4 for LoRA.",
    "max_grad_norm": "Usual: 1.",
    "adam_epsilon": "Usual: 1e-8.",
}
_MINIMA = (
    ("rank", 1, "Typical ranks are 4 to 128."),
    ("lora_alpha", 1e-3, "Usual: the rank, or half of it."),
    ("prior_loss_weight", 0, "Usual: 1."),
    ("num_class_images", 1, "Usual: 100 to 500."),
    ("resolution", 8, "Stable Diffusion 1.5 is trained at 512."),
    ("train_batch_size", 1, "Usual: 1."),
    ("gradient_accumulation_steps", 1, "Usual: 1."),
    ("lr_warmup_steps", 0, "Usual: 0."),
    ("max_train_steps", 1, "Usual: 200 to 800."),
    ("checkpointing_steps", 1, "Usual: 100 to 500."),
    ("checkpoints_total_limit", 1, "Usual: 2; None keeps all."),
    ("adam_weight_decay", 0, "Usual: 0.01."),
    ("snr_gamma", 1e-3, "Usual: 5; None weights all timesteps alike."),
    ("seed", 0, "Any whole number from 0 on will do."),
)
_KINDS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "str": ("a text", str),
    "bool": ("True or False", bool),
    "int": ("a whole number", int),
    "float": ("a number", (int, float)),
}


def from_dict(values: dict[str, Any]) -> DreamBooth | LoRA:
    """Makes hyperparameters from what `Hyperparameters.as_dict` gave.

    Args:
        values: `method` and any of its hyperparameters.

    Returns:
        The hyperparameters.

    Raises:
        ValueError: An unknown method or name (the message gives the nearest), or a bad value.
    """
    values = dict(values)
    method = values.pop("method", "")
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    names = [item.name for item in fields(METHODS[method])]
    for name in values:
        if name not in names:
            raise ValueError(unknown(f"hyperparameter of {method}", name, names))
    return METHODS[method](**values)  # type: ignore[return-value]


def unknown(what: str, value: object, choices: Iterable[str]) -> str:
    """Writes the message for a value that isn't one of the choices.

    Args:
        what: What the value is, such as `method`.
        value: What was given.
        choices: What is allowed.

    Returns:
        A sentence that names the value, the nearest choice, and the choices.
    """
    choices = list(choices)
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {what}: {value!r}.{hint} Choose from: {', '.join(choices)}."


def _check_type(name: str, value: object, annotation: str) -> None:
    if value is None and "None" in annotation:
        return
    words, kind = _KINDS[annotation.split(" |")[0]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(
            f"{name} must be {words}, got {value!r} ({type(value).__name__}). Give it without quotes."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}. Give an ordinary number.")
