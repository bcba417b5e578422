"""The training methods and their hyperparameters, under the names of diffusers' flags."""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from sdlab.subject import Subject

# Where something lies may change; that it is the same is told by its fingerprint.
PLACES = frozenset({"pretrained_model_name_or_path", "instance_data_dir", "class_data_dir"})
# These change nothing about the trained weights.
BESIDE_TRAINING = frozenset(
    {"checkpointing_steps", "checkpoints_total_limit", "report_to", "validation_prompt", "validation_steps"}
    | {"validation_epochs", "num_validation_images"}
)
LARGEST_SEED = 2**63


@dataclass(frozen=True)
class Range:
    """What a number may be, from `least` on and below `below`, and what is usual."""

    least: float
    usual: str
    below: float = math.inf
    open: bool = False  # `least` itself isn't allowed
    multiple: int = 0  # 0 for any

    def check(self, name: str, value: float) -> None:
        if not self.least <= value < self.below or (self.open and value == self.least):
            rule = f"{'above' if self.open else 'at least'} {number(self.least)}"
            rule += f" and below {number(self.below)}" if math.isfinite(self.below) else ""
            raise ValueError(f"{name} must be {rule}, got {number(value)}. {self.usual}")
        if self.multiple and value % self.multiple:
            nearest = value // self.multiple * self.multiple
            raise ValueError(f"{name} must be a multiple of {self.multiple}, got {value}. Try {nearest}.")


Rate = Annotated[
    float, Range(0, "On Stable Diffusion 1.5, 2e-6 is usual for DreamBooth and 2e-4 for LoRA.", open=True)
]
Scheduler = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
    "piecewise_constant",
]  # fmt: skip


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
        report_to: Also log to accelerate's trackers `tensorboard` or `wandb` (several with commas between);
            None keeps the experiment's own log only.
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
    prior_loss_weight: Annotated[float, Range(0, "Usual: 1.")] = 1.0
    num_class_images: Annotated[int, Range(1, "Usual: 100 to 500.")] = 100
    resolution: Annotated[int, Range(8, "Stable Diffusion 1.5 is trained at 512.", multiple=8)] = 512
    train_batch_size: Annotated[int, Range(1, "Usual: 1.")] = 1
    gradient_accumulation_steps: Annotated[int, Range(1, "Usual: 1.")] = 1
    gradient_checkpointing: bool = False
    learning_rate: Rate = 2e-6
    lr_scheduler: Scheduler = "constant"
    lr_warmup_steps: Annotated[int, Range(0, "Usual: 0.")] = 0
    lr_num_cycles: Annotated[int, Range(1, "Usual: 1.")] = 1
    lr_power: Annotated[float, Range(0, "Usual: 1, a straight line.", open=True)] = 1.0
    lr_step_rules: str | None = None
    max_train_steps: Annotated[int, Range(1, "Usual: 200 to 800.")] = 800
    checkpointing_steps: Annotated[int, Range(1, "Usual: 100 to 500.")] = 500
    checkpoints_total_limit: Annotated[int | None, Range(1, "Usual: 2; None keeps all.")] = 2
    optimizer: Literal["adamw", "adamw8bit", "prodigy", "adafactor"] = "adamw"
    use_8bit_adam: bool = False
    adam_beta1: Annotated[float, Range(0, "Usual: 0.9.", below=1)] = 0.9
    adam_beta2: Annotated[float, Range(0, "Usual: 0.999.", below=1)] = 0.999
    adam_weight_decay: Annotated[float, Range(0, "Usual: 0.01.")] = 1e-2
    adam_epsilon: Annotated[float, Range(0, "Usual: 1e-8.", open=True)] = 1e-8
    max_grad_norm: Annotated[float, Range(0, "Usual: 1.", open=True)] = 1.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    allow_tf32: bool = False
    torch_compile: bool = False
    cache_latents: bool = True
    train_text_encoder: bool = False
    text_encoder_lr: Annotated[float | None, Range(0, "Usual: learning_rate, or half of it.", open=True)] = (
        None
    )
    text_encoder_steps: Annotated[int | None, Range(1, "0 is to leave train_text_encoder out.")] = None
    snr_gamma: Annotated[float | None, Range(1e-3, "Usual: 5; None weights all timesteps alike.")] = None
    noise_offset: Annotated[float, Range(0, "Usual: 0 or 0.1.", below=1)] = 0.0
    use_ema: bool = False
    ema_decay: Annotated[float, Range(0, "Usual: 0.9999.", below=1)] = 0.9999
    num_held_out_images: Annotated[int, Range(0, "Usual: 2 of 20.")] = 0
    validation_prompt: str | None = None
    num_validation_images: Annotated[int, Range(1, "Usual: 4.")] = 4
    validation_steps: Annotated[int, Range(1, "Usual: 50 to 100.")] = 100
    validation_epochs: Annotated[int | None, Range(1, "Usual: 50, as in diffusers' LoRA script.")] = None
    report_to: str | None = None
    seed: Annotated[int, Range(0, "Any whole number from 0 on will do.", below=LARGEST_SEED)] = 0

    method: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, value in vars(self).copy().items():
            object.__setattr__(self, name, _plain(value))
        for name in PLACES:
            if isinstance(place := getattr(self, name), str) and place.startswith("~"):
                object.__setattr__(self, name, os.path.expanduser(place))
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            if get_origin(hint) is not ClassVar:
                _check(name, getattr(self, name), hint)
        for message, is_so in FAULTS.items():
            if is_so(self):
                raise ValueError(message.format(self))

    @property
    def optimizer_name(self) -> str:
        """The optimizer, whichever of the two flags names it."""
        return "adamw8bit" if self.use_8bit_adam else self.optimizer

    @property
    def subject(self) -> Subject:
        """Who or what is learned, read from the prompts."""
        return Subject.of(self.instance_prompt, self.class_prompt)

    def as_dict(self) -> dict[str, Any]:
        """Method and hyperparameters, ready for JSON and for `from_dict`."""
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

    learning_rate: Rate = 2e-4
    rank: Annotated[int, Range(1, "Typical ranks are 4 to 128.")] = 4
    lora_alpha: Annotated[float | None, Range(1e-3, "Usual: the rank, or half of it.")] = None
    lora_dropout: Annotated[float, Range(0, "Usual: 0 or 0.1.", below=1)] = 0.0
    lora_targets: Literal["attention", "attention+ff", "attention+ff+conv"] = "attention"
    use_dora: bool = False

    method: ClassVar[str] = "lora"


PRIOR = frozenset({"class_prompt", "prior_loss_weight", "num_class_images"})  # of prior preservation alone
METHODS: dict[str, type[DreamBooth] | type[LoRA]] = {"dreambooth": DreamBooth, "lora": LoRA}
_FACTOR = r"\d*\.?\d+(e-?\d+)?"
# What to say of texts, and of values that make no sense together; and whether it is so.
FAULTS: dict[str, Callable[[Any], bool]] = {
    "instance_prompt is empty. Name the subject: 'a photo of sks woman face'.": (
        lambda h: not h.instance_prompt.strip()
    ),
    "class_data_dir and instance_data_dir are the same folder, {0.instance_data_dir!r}: the subject's photos "
    "would be learned as images of the class. Give another class_data_dir, or leave it out.": (
        lambda h: (
            h.class_data_dir is not None
            and Path(h.class_data_dir).resolve() == Path(h.instance_data_dir).resolve()
        )
    ),
    "report_to must be tensorboard or wandb, got {0.report_to!r}. The experiment's own log.jsonl is always "
    "written.": lambda h: _unlike(r"(tensorboard|wandb)(,(tensorboard|wandb))*", h.report_to),
    "lr_step_rules must be like '1:100,0.1:300,0.01', got {0.lr_step_rules!r}: factor:step, with commas "
    "between, and the last alone.": lambda h: _unlike(f"({_FACTOR}:\\d+,)+{_FACTOR}", h.lr_step_rules),
    "lr_scheduler 'piecewise_constant' and lr_step_rules belong together, such as '1:100,0.1:300,0.01'. Give "
    "both or neither.": lambda h: (h.lr_scheduler == "piecewise_constant") != (h.lr_step_rules is not None),
    "lr_scheduler 'constant' has no warm-up, got lr_warmup_steps={0.lr_warmup_steps}. Take "
    "'constant_with_warmup', or 0 steps.": lambda h: h.lr_scheduler == "constant" and h.lr_warmup_steps > 0,
    "lr_warmup_steps must be below max_train_steps, got {0.lr_warmup_steps} of {0.max_train_steps}. The "
    "learning rate would never be reached.": lambda h: h.lr_warmup_steps >= h.max_train_steps,
    "text_encoder_lr is set, but the text encoder isn't trained. Add train_text_encoder, or leave it out.": (
        lambda h: h.text_encoder_lr is not None and not h.train_text_encoder
    ),
    "text_encoder_steps is set, but the text encoder isn't trained. Add train_text_encoder, or leave "
    "it out.": lambda h: h.text_encoder_steps is not None and not h.train_text_encoder,
    "with_prior_preservation needs a class_prompt, got none. It is the instance prompt without the rare "
    "word: {0.subject.class_prompt!r}.": (
        lambda h: h.with_prior_preservation and not (h.class_prompt or "").strip()
    ),
    "use_8bit_adam and optimizer={0.optimizer!r} name two optimizers. Give one of them.": (
        lambda h: h.use_8bit_adam and h.optimizer not in ("adamw", "adamw8bit")
    ),
    "prodigy finds the learning rate itself and multiplies it by learning_rate, got {0.learning_rate:g}. "
    "Give 1, which is usual, or another optimizer.": (
        lambda h: h.optimizer == "prodigy" and h.learning_rate < 0.1
    ),
    "prodigy finds one learning rate for all weights, so leave text_encoder_lr out.": (
        lambda h: h.optimizer == "prodigy" and h.text_encoder_lr not in (None, h.learning_rate)
    ),
}


def _unlike(pattern: str, text: str | None) -> bool:
    return text is not None and not re.fullmatch(pattern, text)


def from_dict(values: Mapping[str, Any]) -> DreamBooth | LoRA:
    """Makes hyperparameters from what `Hyperparameters.as_dict` gave.

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
    return METHODS[method](**values)


def unknown(what: str, value: object, choices: Iterable[str]) -> str:
    """A sentence that names a value which isn't one of the choices, the nearest choice, and all of them."""
    choices = list(choices)
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {what}: {value!r}.{hint} Choose from: {', '.join(choices)}."


def number(value: Any) -> str:
    """A figure in its shortest usual form: `2e-4`, `1.2`, `800`."""
    if not isinstance(value, float):
        return str(value)
    if value and (abs(value) < 0.1 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def _plain(value: Any) -> Any:
    """A path as text, and numpy's numbers as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, int) else value


def _check(name: str, value: Any, hint: Any) -> None:
    """Refuses a value of another type than its annotation says, or out of its range."""
    hint, *limits = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(hint) is UnionType:
        if value is None:
            return
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(unknown(name, value, get_args(hint)))
        return
    words = {str: "a text", bool: "True or False", int: "a whole number", float: "a number"}[hint]
    kinds = (int, float) if hint is float else (hint,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
        way_out = (
            f"Write {name}={int(value)}"
            if hint is int and isinstance(value, float) and math.isfinite(value)
            else ""
        )
        way_out = "Give it without quotes" if isinstance(value, str) else way_out
        said = f"{name} must be {words}, got {value!r} ({type(value).__name__})."
        raise ValueError(f"{said} {way_out}." if way_out else said)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}. Give an ordinary number.")
    for limit in limits:
        limit.check(name, value)
