"""Everything a training step needs, made ready: parts, data, optimizer; and why each was chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import EMAModel

from sdlab import machine
from sdlab.config import Hyperparameters, LoRA
from sdlab.experiment import Experiment
from sdlab.models import BaseModel, fuse, resolve
from sdlab.photos import read_captions
from sdlab.sampling import warn_of_cut_prompts
from sdlab.training import dreambooth, lora
from sdlab.training.data import CACHE, Batch, Encoded, Latents, Prompts, Source, encode_images
from sdlab.training.optimizer import make_optimizer, rate_factor

Notify = Callable[[str], None]
_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Model:
    """What trainings in one pass share: the base model's parts and the images.

    Args:
        unet: The pipeline's, maybe compiled.
        sources: The instance images, and the class images.
        prompts: Of these; the held-out images come after the other instance images.
        active: The adapters that the next pass computes, in the order of their images.
    """

    base: BaseModel
    accelerator: Accelerator
    pipeline: StableDiffusionPipeline
    unet: torch.nn.Module
    noise_scheduler: DDPMScheduler
    sources: list[Source]
    held_out: Latents | None
    prompts: Prompts
    active: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.accelerator.device

    def predict(self, trainings: Sequence[Training], batches: Sequence[Batch]) -> tuple[torch.Tensor, ...]:
        """Adds the noise to each training's batch and predicts it, all trainings in one pass."""
        self.active[:] = [training.adapter for training in trainings]
        timesteps = torch.cat([batch.timesteps for batch in batches])
        noisy = self.noise_scheduler.add_noise(
            torch.cat([batch.latents for batch in batches]),  # (trainings · batch, channels, height, width)
            torch.cat([batch.noise for batch in batches]),
            timesteps,
        )
        # only batches of the training's own shape are worth compiling for
        unet = self.unet if torch.is_grad_enabled() else self.pipeline.unet
        with self.accelerator.autocast():
            predicted = unet(noisy, timesteps, self.prompts.embeddings(batches), return_dict=False)[0]
        return predicted.chunk(len(batches))


@dataclass(eq=False)
class Training:
    """One experiment's training.

    Args:
        adapter: peft's name for its LoRA.
        weights: What is trained, by name.
        rate_factor: Of the learning rate, for each step.
        scaler: Of the loss, for fp16.
        ema: The weights' running mean, if it is asked for.
        done: Steps.
        error: What ended it before its last step.
    """

    experiment: Experiment
    hyperparameters: Hyperparameters
    model: Model
    adapter: str
    weights: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    rate_factor: Callable[[int], float]
    scaler: torch.amp.GradScaler
    ema: EMAModel | None
    done: int = 0
    error: Exception | None = None

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.done >= self.hyperparameters.max_train_steps

    @property
    def learning_rate(self) -> float:
        """That of the next step; Prodigy multiplies the schedule's by its own estimate."""
        group = self.optimizer.param_groups[0]
        return float(group["initial_lr"] * self.rate_factor(self.done) * group.get("d", 1))

    def freeze_text_encoder(self) -> None:
        """Stops training the text encoder and encodes the prompts for the last time."""
        for name, weight in self.weights.items():
            if name.startswith("text_encoder."):
                weight.requires_grad_(False)
        self.model.active[:] = [self.adapter]
        self.model.prompts.freeze()

    def export(self) -> None:
        """Saves what was trained, in diffusers' format."""
        if self.ema is not None:
            self.ema.copy_to(self.weights.values())
        if isinstance(self.hyperparameters, LoRA):
            lora.export(self.model.pipeline, self.experiment, self.adapter)
        else:
            dreambooth.export(self.model.pipeline, self.experiment)


@contextmanager
def evaluation(trainings: Sequence[Training]) -> Iterator[None]:
    """Computes these trainings with the weights as they will be saved, without gradients, in the block."""
    model = trainings[0].model
    parts = (model.pipeline.unet, model.pipeline.text_encoder)
    averaged = [(one.ema, one.weights.values()) for one in trainings if one.ema is not None]
    model.active[:] = [one.adapter for one in trainings]
    for part in parts:
        part.eval()
    for ema, weights in averaged:
        ema.store(weights)
        ema.copy_to(weights)
    try:
        with torch.no_grad():
            yield
    finally:
        for ema, weights in averaged:
            ema.restore(weights)
        for part in parts:
            part.train()


def set_up(
    experiment: Experiment,
    chosen: Hyperparameters,
    files: Sequence[Sequence[Path]],
    notify: Notify,
    held_out: Sequence[Path] = (),
) -> Training:
    """Gets a training that shares its model with no other ready for its first step; see `load_model`."""
    base = resolve(chosen.pretrained_model_name_or_path, experiment.root)
    return start(load_model(base, chosen, files, notify, held_out), experiment, chosen, notify)


def load_model(
    base: BaseModel,
    chosen: Hyperparameters,
    files: Sequence[Sequence[Path]],
    notify: Notify,
    held_out: Sequence[Path] = (),
) -> Model:
    """Loads the base model and the images, and says what is chosen, and why.

    Args:
        chosen: Of one of the trainings; only what they have in common is read.
        files: The instance images, and with prior preservation the class images.
        held_out: Instance images that aren't trained on.

    Raises:
        ValueError: An image can't be read.
    """
    AcceleratorState._reset_state()  # or a second training in this process couldn't have another precision
    accelerator = Accelerator(mixed_precision=chosen.mixed_precision)
    device = accelerator.device
    notify(f"device: {device.type}, because {machine.choose_device()[1]}")
    notify(f"mixed precision: {accelerator.mixed_precision}")
    pipeline = fuse(base.load())
    count = " + ".join(str(len(group)) for group in files)
    sources: list[Source]
    if chosen.cache_latents:
        notify(f"latents: encoded once for {count} images, sampled anew in each step; kept in {CACHE}")
        sources = [encode_images(pipeline.vae, group, chosen.resolution, device) for group in files]
    else:
        notify(f"latents: {count} images are encoded anew in each step, since cache_latents is off")
        sources = [Encoded(pipeline.vae.to(device), group, chosen.resolution) for group in files]
    held = encode_images(pipeline.vae, held_out, chosen.resolution, device) if held_out else None
    if isinstance(chosen, LoRA):
        lora.freeze(pipeline, _DTYPES[chosen.mixed_precision])
    else:
        dreambooth.prepare(pipeline, chosen)
    for part in (pipeline.unet, pipeline.text_encoder):
        part.to(device).train()  # transformers computes activations twice only in this mode
    prompts = _prompts(pipeline, chosen, [[*files[0], *held_out], *files[1:]], device, notify)
    if chosen.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.text_encoder.gradient_checkpointing_enable({"use_reentrant": False})
        notify("gradient checkpointing: activations are computed twice to save memory")
    if device.type == "cuda":
        pipeline.unet.to(memory_format=torch.channels_last)
        torch.backends.cuda.matmul.allow_tf32 = chosen.allow_tf32
        notify("GPU: channels last, the order that its convolutions want; torch's fused attention")
        notify(f"float32 products: in {'TF32, faster and less exact' if chosen.allow_tf32 else 'full'}")
    return Model(
        base=base,
        accelerator=accelerator,
        pipeline=pipeline,
        unet=torch.compile(pipeline.unet) if chosen.torch_compile else pipeline.unet,
        noise_scheduler=DDPMScheduler.from_config(pipeline.scheduler.config),
        sources=sources,
        held_out=held,
        prompts=prompts,
    )


def start(model: Model, experiment: Experiment, chosen: Hyperparameters, notify: Notify) -> Training:
    """Gets one training ready for its first step."""
    pipeline = model.pipeline
    adapter = f"adapter{len(getattr(pipeline.unet, 'peft_config', ()))}"
    if isinstance(chosen, LoRA):
        lora.prepare(pipeline, chosen, adapter, model.active)
    weights = {
        f"{part_name}.{name}".replace(f".{adapter}.", ".default."): weight
        for part_name, part in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder))
        for name, weight in part.named_parameters()
        if weight.requires_grad and (not isinstance(chosen, LoRA) or f".{adapter}." in f"{name}.")
    }
    optimizer = make_optimizer(chosen, weights, model.device, notify)
    return Training(
        experiment=experiment,
        hyperparameters=chosen,
        model=model,
        adapter=adapter,
        weights=weights,
        optimizer=optimizer,
        rate_factor=rate_factor(chosen, optimizer),
        scaler=torch.amp.GradScaler(model.device.type, enabled=chosen.mixed_precision == "fp16"),
        ema=EMAModel(weights.values(), decay=chosen.ema_decay, foreach=True) if chosen.use_ema else None,
    )


def _prompts(
    pipeline: StableDiffusionPipeline,
    chosen: Hyperparameters,
    files: Sequence[Sequence[Path]],
    device: torch.device,
    notify: Notify,
) -> Prompts:
    """Gives each image its text: an instance image its own caption, or else the prompt of its source."""
    captions = read_captions(chosen.instance_data_dir)
    instance = [captions.get(file.name, chosen.instance_prompt) for file in files[0]]
    texts = [instance, *([chosen.class_prompt or ""] * len(group) for group in files[1:])]
    warn_of_cut_prompts(pipeline, (text for group in texts for text in group))
    _check_rare_word(pipeline, chosen)
    if captioned := sum(file.name in captions for file in files[0]):
        notify(f"captions: {captioned} of {len(files[0])} images have one of their own")
    trained = chosen.train_text_encoder
    notify("text encoder: trained" if trained else "text encoder: frozen, so the prompts are encoded once")
    return Prompts(pipeline, texts, device, trained=trained)


def _check_rare_word(pipeline: StableDiffusionPipeline, chosen: Hyperparameters) -> None:
    """Refuses an instance prompt whose rare word the text encoder never reads."""
    tokenizer, rare_word = pipeline.tokenizer, chosen.subject.rare_word
    if not rare_word:
        return
    limit = tokenizer.model_max_length - 2  # without the start and end tokens
    before = chosen.instance_prompt.partition(rare_word)[0]
    tokens = tokenizer(f"{before}{rare_word}", add_special_tokens=False, verbose=False).input_ids
    if len(tokens) > limit:
        raise ValueError(
            f"The text encoder reads {limit} tokens of the instance prompt, and {rare_word!r} stands behind "
            f"them, so it would learn nothing of it. Put it first: {chosen.subject.instance_prompt!r}."
        )
