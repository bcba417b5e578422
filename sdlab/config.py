"""The training methods and their hyperparameters, under the names of diffusers' flags."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

LR_SCHEDULERS = (
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "piecewise_constant",
)
MIXED_PRECISIONS = ("no", "fp16", "bf16")
OPTIMIZERS = ("adamw", "adamw8bit", "prodigy", "adafactor")
LORA_TARGETS = ("attention", "attention+ff", "attention+ff+conv")


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
        lr_scheduler: `constant`, `constant_with_warmup`, `linear`, `cosine`, `cosine_with_restarts`,
            `polynomial` or `piecewise_constant`, as in diffusers.
        lr_warmup_steps: Steps until the learning rate is reached (`constant` has no warm-up).
        lr_num_cycles: Restarts of `cosine_with_restarts`.
        lr_power: Of `polynomial`.
        lr_step_rules: Of `piecewise_constant`: `1:100,0.1:300,0.01` multiplies the rate by 1 up to step 100,
            by 0.1 up to step 300, and by 0.01 after it.
        max_train_steps: Steps in all.
        checkpointing_steps: Steps between two checkpoints.
        checkpoints_total_limit: How many checkpoints to keep; None keeps all.
        optimizer: `adamw`, `adamw8bit`, `adafactor`, or `prodigy`, which finds the learning rate itself
            (give it 1).
        use_8bit_adam: AdamW of bitsandbytes, whose state takes a quarter of the memory: diffusers' flag for
            the optimizer `adamw8bit`.
        adam_beta1: Decay of the gradient's running mean.
        adam_beta2: Decay of the squared gradient's running mean.
        adam_weight_decay: Decoupled weight decay.
        adam_epsilon: Added to the denominator.
        max_grad_norm: The gradient's norm is clipped to this.
        mixed_precision: `no`, `fp16` or `bf16`.
        allow_tf32: Let an NVIDIA GPU multiply float32 matrices in TF32: faster, less exact.
        torch_compile: Compile the UNet: the first step takes minutes, the others are faster on a GPU.
        cache_latents: Encode the images once and keep the VAE's distributions; False encodes in each step.
        train_text_encoder: Train the text encoder too.
        text_encoder_lr: Learning rate of the text encoder; None takes `learning_rate`.
        text_encoder_steps: Train the text encoder in the first steps only; None trains it to the end.
        snr_gamma: Weight the loss by min-SNR with this gamma (5 is usual); None weights all timesteps alike.
        noise_offset: Shift each channel's noise by this times a random number, so that dark and bright
            images can be learned (0.1 is usual); 0 doesn't.
        use_ema: Save the running mean of the weights instead of the last ones.
        ema_decay: Of the running mean, at most; it starts lower.
        num_held_out_images: Instance images that aren't trained on; their loss is the validation loss.
        validation_prompt: Make images of it while training; None makes none.
        num_validation_images: How many, with the seeds `seed`, `seed + 1` …
        validation_steps: Steps between two validations.
        validation_epochs: Passes over the instance images between two validations, in place of steps.
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
    lr_num_cycles: int = 1
    lr_power: float = 1.0
    lr_step_rules: str | None = None
    max_train_steps: int = 800
    checkpointing_steps: int = 500
    checkpoints_total_limit: int | None = 2
    optimizer: str = "adamw"
    use_8bit_adam: bool = False
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    allow_tf32: bool = False
    torch_compile: bool = False
    cache_latents: bool = True
    train_text_encoder: bool = False
    text_encoder_lr: float | None = None
    text_encoder_steps: int | None = None
    snr_gamma: float | None = None
    noise_offset: float = 0.0
    use_ema: bool = False
    ema_decay: float = 0.9999
    num_held_out_images: int = 0
    validation_prompt: str | None = None
    num_validation_images: int = 4
    validation_steps: int = 100
    validation_epochs: int | None = None
    seed: int = 0

    method: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_type(item.name, getattr(self, item.name), str(item.type))
        for name, minimum, usual in _MINIMA:
            if (value := getattr(self, name, None)) is not None and value < minimum:
                raise ValueError(f"{name} must be at least {minimum:g}, got {value:g}. {usual}")
        for name in _POSITIVE:
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value:g}. {_USUAL[name]}")
        for name in _BELOW_ONE:
            if not 0 <= (value := getattr(self, name, 0)) < 1:
                raise ValueError(
                    f"{name} must be at least 0 and below 1, got {value:g}. Usual: {_BELOW_ONE[name]}."
                )
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name, choices[0])) not in choices:
                raise ValueError(unknown(name, value, choices))
        for holds, message in self._contradictions():
            if holds:
                raise ValueError(message)

    def _contradictions(self) -> Iterator[tuple[bool, str]]:
        """What makes no sense together: whether it is so, and what to say."""
        yield (
            self.resolution % 8 != 0,
            f"resolution must be a multiple of 8, got {self.resolution}. Try {self.resolution // 8 * 8}.",
        )
        yield (
            not self.instance_prompt.strip(),
            "instance_prompt is empty. Name the subject: 'a photo of sks woman face'.",
        )
        yield (
            self.with_prior_preservation and not (self.class_prompt or "").strip(),
            "with_prior_preservation needs a class_prompt, got none. It is the instance prompt without "
            f"the rare word: {' '.join(self.instance_prompt.replace('sks', '').split())!r}.",
        )
        yield (
            self.use_8bit_adam and self.optimizer not in ("adamw", "adamw8bit"),
            f"use_8bit_adam and optimizer={self.optimizer!r} name two optimizers. Give one of them.",
        )
        yield (
            self.optimizer == "prodigy" and self.learning_rate < 0.1,
            f"prodigy finds the learning rate itself and multiplies it by learning_rate, got "
            f"{self.learning_rate:g}. Give 1, which is usual, or another optimizer.",
        )
        yield (
            self.optimizer == "prodigy" and self.text_encoder_lr not in (None, self.learning_rate),
            "prodigy finds one learning rate for all weights, so text_encoder_lr can't be set. Leave it out.",
        )
        for name in ("text_encoder_lr", "text_encoder_steps"):
            yield (
                getattr(self, name) is not None and not self.train_text_encoder,
                f"{name} is set, but the text encoder isn't trained. Add train_text_encoder or leave it out.",
            )
        yield (
            self.lr_scheduler == "constant" and self.lr_warmup_steps > 0,
            f"lr_scheduler 'constant' has no warm-up, got lr_warmup_steps={self.lr_warmup_steps}. "
            "Take 'constant_with_warmup', or 0 steps.",
        )
        yield (
            self.lr_warmup_steps >= self.max_train_steps,
            f"lr_warmup_steps must be below max_train_steps, got {self.lr_warmup_steps} of "
            f"{self.max_train_steps}. The learning rate would never be reached.",
        )
        yield (
            (self.lr_scheduler == "piecewise_constant") != (self.lr_step_rules is not None),
            "lr_scheduler 'piecewise_constant' and lr_step_rules belong together, such as "
            "'1:100,0.1:300,0.01'. Give both or neither.",
        )
        yield (
            self.lr_step_rules is not None and not re.fullmatch(_STEP_RULES, self.lr_step_rules),
            f"lr_step_rules must be like '1:100,0.1:300,0.01', got {self.lr_step_rules!r}: factor:step, "
            "with commas between, and the last factor alone.",
        )

    @property
    def optimizer_name(self) -> str:
        """The optimizer, whichever of the two flags names it."""
        return "adamw8bit" if self.use_8bit_adam else self.optimizer

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
    """Train a low-rank addition to some layers: W + lora_alpha / rank · B A.

    Args:
        rank: Rows of A and columns of B.
        lora_alpha: Strength of the addition; None takes the rank, as diffusers does.
        lora_dropout: Share of the layer's input that B A doesn't see in a step.
        lora_targets: Which layers: `attention`, `attention+ff` (and the feed-forward layers behind it), or
            `attention+ff+conv` (and all convolutions of the UNet's blocks).
        use_dora: Learn the length of each of W's rows by itself, apart from its direction.

    Source:
        Hu et al. 2021, "LoRA", arXiv:2106.09685; Liu et al. 2024, "DoRA", arXiv:2402.09353;
        diffusers `train_dreambooth_lora.py`.
    """

    learning_rate: float = 2e-4
    rank: int = 4
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: str = "attention"
    use_dora: bool = False

    method: ClassVar[str] = "lora"


METHODS: dict[str, type[Hyperparameters]] = {"dreambooth": DreamBooth, "lora": LoRA}

_USUAL = {
    "learning_rate": "On Stable Diffusion 1.5, 2e-6 is usual for DreamBooth and 2e-4 for LoRA.",
    "text_encoder_lr": "Usual: the learning rate, or half of it.",
    "max_grad_norm": "Usual: 1.",
    "adam_epsilon": "Usual: 1e-8.",
    "lr_power": "Usual: 1, a straight line.",
}
_POSITIVE = tuple(_USUAL)
_BELOW_ONE = {
    "adam_beta1": "0.9",
    "adam_beta2": "0.999",
    "ema_decay": "0.9999",
    "lora_dropout": "0 or 0.1",
    "noise_offset": "0 or 0.1",
}
_CHOICES = {
    "lr_scheduler": LR_SCHEDULERS,
    "mixed_precision": MIXED_PRECISIONS,
    "optimizer": OPTIMIZERS,
    "lora_targets": LORA_TARGETS,
}
_STEP_RULES = r"([\d.e-]+:\d+,)+[\d.e-]+"
_MINIMA = (
    ("rank", 1, "Typical ranks are 4 to 128."),
    ("lora_alpha", 1e-3, "Usual: the rank, or half of it."),
    ("prior_loss_weight", 0, "Usual: 1."),
    ("num_class_images", 1, "Usual: 100 to 500."),
    ("resolution", 8, "Stable Diffusion 1.5 is trained at 512."),
    ("train_batch_size", 1, "Usual: 1."),
    ("gradient_accumulation_steps", 1, "Usual: 1."),
    ("lr_warmup_steps", 0, "Usual: 0."),
    ("lr_num_cycles", 1, "Usual: 1."),
    ("max_train_steps", 1, "Usual: 200 to 800."),
    ("checkpointing_steps", 1, "Usual: 100 to 500."),
    ("checkpoints_total_limit", 1, "Usual: 2; None keeps all."),
    ("adam_weight_decay", 0, "Usual: 0.01."),
    ("text_encoder_steps", 1, "To leave the text encoder as it is, leave out train_text_encoder."),
    ("num_held_out_images", 0, "Usual: 2 of 20."),
    ("num_validation_images", 1, "Usual: 4."),
    ("validation_steps", 1, "Usual: 50 to 100."),
    ("validation_epochs", 1, "Usual: 50, the way of diffusers' LoRA script."),
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


def number(value: Any) -> str:
    """Writes a figure in the shortest usual form.

    Args:
        value: A number, or anything else.

    Returns:
        `2e-4`, `1.2`, `800`.
    """
    if not isinstance(value, float):
        return str(value)
    if value and (abs(value) < 0.1 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


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
